"""The ways to merge: each is written and measured against base + adapter.

Everything stands in the stage's scratch folder, which a killed run of the same key finds again: a
shard that is there is not made again, nor is a measurement.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from peft import PeftModel
from torch import Tensor

from tasks.core.models.loading import free_gpu, load_model
from tasks.core.models.packed_dataset import Window
from tasks.core.models.trusted_code import is_trusted, trust
from tasks.core.progress import say
from tasks.core.settings.merge import MergeSettings
from tasks.core.system.atomic_write import write_text
from tasks.merging.adapter import Adapter
from tasks.merging.safetensors_io import Entry, write_shards
from tasks.merging.verify import (
    Measured,
    Verdict,
    judge,
    measure,
)

WEIGHTS_SUFFIX = ".weight"
MEASURED = "measured.json"


@dataclass(frozen=True)
class Trial:
    """What was measured.

    Attributes:
        evaluated_loss: Of base + adapter as it was evaluated.
        sample_tokens: Trained tokens of the sample.
        tried: A verdict a way.
    """

    evaluated_loss: float
    sample_tokens: int
    tried: tuple[Verdict, ...]


def folder_of(scratch: Path, strategy: str) -> Path:
    """Where the weights of a way stand."""
    return scratch / f"model-{strategy}"


def try_all(
    settings: MergeSettings,
    inputs: Mapping[str, Path],
    scratch: Path,
    *,
    adapter: Adapter,
    shards: Sequence[Sequence[Entry]],
    strategies: Sequence[str],
    sample: Sequence[Window],
) -> Trial:
    """Write the merged weights of every way and measure them; or recall what a killed run had."""
    if (scratch / MEASURED).is_file():
        say("the ways to merge were measured by an earlier run, which was stopped; going on there")
        return _read(scratch / MEASURED)
    evaluated = _make(
        settings,
        inputs,
        scratch,
        adapter=adapter,
        shards=shards,
        strategies=strategies,
        sample=sample,
    )
    tried = tuple(
        _compared(
            settings,
            inputs,
            folder_of(scratch, strategy),
            strategy=strategy,
            sample=sample,
            evaluated=evaluated,
        )
        for strategy in strategies
    )
    trial = Trial(evaluated.loss, len(evaluated.tokens), tried)
    write_text(scratch / MEASURED, json.dumps(asdict(trial)))
    return trial


def _read(path: Path) -> Trial:
    raw = json.loads(path.read_text(encoding="utf-8"))
    return Trial(**{**raw, "tried": tuple(Verdict(**verdict) for verdict in raw["tried"])})


def _make(
    settings: MergeSettings,
    inputs: Mapping[str, Path],
    scratch: Path,
    *,
    adapter: Adapter,
    shards: Sequence[Sequence[Entry]],
    strategies: Sequence[str],
    sample: Sequence[Window],
) -> Measured:
    """Write the merged weights of every strategy, and measure base + adapter."""
    base = _load(inputs["base.weights"], settings.quantization, settings)
    # before the first forward pass: on a CPU with AVX512-BF16 it repacks the 4-bit layers in
    # place, and they no longer dequantize to themselves
    quantized = {name: module for name, module in base.named_modules() if _is_4bit(module)}
    for strategy in strategies:
        folder = folder_of(scratch, strategy)
        folder.mkdir(parents=True, exist_ok=True)
        layers = quantized if strategy == "dequantized" else {}
        write_shards(
            shards,
            folder,
            getattr(torch, settings.dtype),
            partial(merged_tensor, adapter=adapter, quantized=layers),
            f"merging, {strategy}",
        )
        shutil.copyfile(inputs["base.weights"] / "config.json", folder / "config.json")
        if is_trusted(inputs["base.weights"]):
            for file in sorted(inputs["base.weights"].glob("*.py")):
                shutil.copyfile(file, folder / file.name)
            trust(folder)
    tuned = PeftModel.from_pretrained(base, inputs["train.adapter"]).eval()
    evaluated = measure(tuned, sample, "base + adapter")
    del base, tuned, quantized, layers
    free_gpu()
    return evaluated


def merged_tensor(
    name: str, tensor: Tensor, adapter: Adapter, quantized: Mapping[str, Any]
) -> Tensor:
    """A tensor of the base as it stands in the merged model, before rounding.

    Args:
        name: In the base's safetensors.
        tensor: Its value there.
        adapter: What is added.
        quantized: 4-bit layers by name, whose value replaces the base's; {} to keep it.
    """
    module = name.removesuffix(WEIGHTS_SUFFIX) if name.endswith(WEIGHTS_SUFFIX) else ""
    if (layer := quantized.get(module)) is not None:
        tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float().cpu()
    if (update := adapter.updates.get(module)) is not None:
        return update.apply(tensor)
    return tensor


def _is_4bit(module: Any) -> bool:
    return getattr(getattr(module, "weight", None), "quant_state", None) is not None


def _load(folder: Path, quantization: Any, settings: MergeSettings) -> Any:
    return load_model(
        folder,
        quantization=quantization,
        device=settings.check_device,
        dtype="bfloat16",
        trust_remote_code=is_trusted(folder),
    )


def _compared(
    settings: MergeSettings,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    strategy: str,
    sample: Sequence[Window],
    evaluated: Measured,
) -> Verdict:
    """Load what was written and compare it with the same base and the adapter beside it."""
    unmerged = evaluated
    if strategy == "base16" and settings.quantization != "none":
        base = _load(inputs["base.weights"], "none", settings)
        tuned = PeftModel.from_pretrained(base, inputs["train.adapter"]).eval()
        unmerged = measure(tuned, sample, "16-bit base + adapter")
        del base, tuned
        free_gpu()
    model = _load(folder, "none", settings)
    merged = measure(model, sample, f"merged, {strategy}")
    del model
    free_gpu()
    return judge(
        strategy,
        merged,
        unmerged,
        evaluated.loss,
        tolerance_percent=settings.tolerance_percent,
        min_agreement=settings.min_agreement,
    )
