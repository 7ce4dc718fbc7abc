"""Stage `merge`: adapter, base, tokenizer and the gate's verdict -> model/, ready to be loaded.

Two ways exist: add the adapter to the 16-bit base, or to what comes back from the 4-bit base that
it was trained on. Which is better depends on the model, so both are made and measured.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from peft import PeftModel
from torch import Tensor

from tasks.core.config import View
from tasks.core.errors import PipelineError
from tasks.core.modeling import free_gpu, load_model
from tasks.core.progress import say
from tasks.core.settings.merge import MergeSettings
from tasks.core.stage import Summary, Work
from tasks.core.windows import Window, Windows
from tasks.merging.adapter import Adapter, read_adapter
from tasks.merging.card import model_card
from tasks.merging.check import Measured, Verdict, best, judge, measure, sample_rows
from tasks.merging.shards import Entry, list_tensors, plan_shards, write_shards
from tasks.merging.space import GIB, check_disk, check_memory

WEIGHTS_SUFFIX = ".weight"
NOT_COPIED = ("model_limits.json",)  # of the tokenizer's folder: the pipeline's own
PATHS_IN_CONFIG = ("_name_or_path", "torch_dtype", "quantization_config")


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """See the module."""
    settings = config.merge
    gate = _json(inputs["evaluate.gate"])
    obey(gate, settings.force)
    adapter = read_adapter(inputs["train.adapter"])
    tensors = list_tensors(inputs["base.weights"])
    _check_names(adapter, tensors)
    shards = plan_shards(tensors, int(settings.max_shard_gib * GIB))
    strategies = _strategies(settings.strategy, settings.quantization)
    model_bytes = sum(entry.size for entry in tensors)
    check_disk(work.out, model_bytes, len(strategies))
    check_memory(model_bytes, max(sum(e.size for e in shard) for shard in shards))
    sample = sample_rows(Windows.open(inputs["tokenize.test"]).rows(), settings.sample_tokens)
    if not sample:
        raise PipelineError(
            "the held-out split has 0 rows: the merged model can't be measured",
            "Give the test split a share of the data in the prompt section.",
        )
    evaluated, folders = _make(
        settings,
        inputs,
        work.out,
        adapter=adapter,
        shards=shards,
        strategies=strategies,
        sample=sample,
    )
    tried = [
        _compared(settings, inputs, folders[s], strategy=s, sample=sample, evaluated=evaluated)
        for s in strategies
    ]
    kept = _choose(tried)
    for strategy in strategies:
        if strategy != kept.strategy:
            shutil.rmtree(folders[strategy])
    model = folders[kept.strategy].rename(work.out / "model")
    _accompany(inputs, model, settings.dtype)
    licence = _json(inputs["base.licence"])
    card = model_card(
        base=licence["base"],
        licence=licence["licence"],
        licence_files=licence["files"],
        adapter=adapter.settings,
        gate=gate,
        metrics=_json(inputs["evaluate.metrics"]),
        tried=tried,
        kept=kept,
        evaluated_loss=evaluated.loss,
        quantization=settings.quantization,
        sample_tokens=len(evaluated.tokens),
        dtype=settings.dtype,
        forced=gate["verdict"] == "regressed",
    )
    (model / "README.md").write_text(card, encoding="utf-8")
    return _summary(gate["verdict"], tried, kept, evaluated, model_bytes)


def obey(gate: Mapping[str, Any], force: bool) -> None:
    """Stop where the evaluation found the tuned model worse.

    Raises:
        PipelineError: The verdict is regressed, and force is off.
    """
    if gate["verdict"] == "regressed" and not force:
        raise PipelineError(
            f"the evaluation says regressed: {' '.join(gate['reasons'])}",
            "Change the training and run again, or set merge.force to merge all the same.",
        )


def _strategies(strategy: str, quantization: str) -> tuple[str, ...]:
    if quantization == "none":
        return ("base16",)
    return ("base16", "dequantized") if strategy == "best" else (strategy,)


def _check_names(adapter: Adapter, tensors: Sequence[Entry]) -> None:
    names = {entry.name for entry in tensors}
    if missing := [m for m in sorted(adapter.updates) if m + WEIGHTS_SUFFIX not in names]:
        raise PipelineError(
            f"the adapter changes {len(missing)} layers that the base does not have, such as "
            f"{missing[0]}",
            "Merge into the base model that the adapter was trained on.",
        )


def _make(
    settings: MergeSettings,
    inputs: Mapping[str, Path],
    out: Path,
    *,
    adapter: Adapter,
    shards: Sequence[Sequence[Entry]],
    strategies: Sequence[str],
    sample: Sequence[Window],
) -> tuple[Measured, dict[str, Path]]:
    """Write the merged weights of every strategy, and measure base + adapter."""
    base = _load(inputs["base.weights"], settings.quantization, settings)
    # before the first forward pass: on a CPU with AVX512-BF16 it repacks the 4-bit layers in
    # place, and they no longer dequantize to themselves
    quantized = {name: module for name, module in base.named_modules() if _is_4bit(module)}
    folders = {}
    for strategy in strategies:
        folders[strategy] = out / f"model-{strategy}"
        folders[strategy].mkdir()
        layers = quantized if strategy == "dequantized" else {}
        write_shards(
            shards,
            folders[strategy],
            getattr(torch, settings.dtype),
            partial(merged_tensor, adapter=adapter, quantized=layers),
            f"merging, {strategy}",
        )
        shutil.copyfile(inputs["base.weights"] / "config.json", folders[strategy] / "config.json")
    tuned = PeftModel.from_pretrained(base, inputs["train.adapter"]).eval()
    evaluated = measure(tuned, sample, "base + adapter")
    del base, tuned, quantized, layers
    free_gpu()
    return evaluated, folders


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
        folder, quantization=quantization, device=settings.check_device, dtype="bfloat16"
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


def _choose(tried: Sequence[Verdict]) -> Verdict:
    """The best way of merging, and a sentence about the others.

    Raises:
        PipelineError: None does what base + adapter did.
    """
    kept = best(tried)
    if kept is None:
        raise PipelineError(
            "the merged model differs from base + adapter: "
            + "; ".join(f"{verdict.strategy}: {verdict.problem}" for verdict in tried),
            "See that merge.quantization is what training used; else raise "
            "merge.tolerance_percent or lower merge.min_agreement, knowingly.",
        )
    for verdict in tried:
        if verdict is not kept:
            why = verdict.problem or f"loss {verdict.loss:.4f}"
            say(f"{kept.strategy} (loss {kept.loss:.4f}) is kept over {verdict.strategy} ({why})")
    return kept


def _accompany(inputs: Mapping[str, Path], model: Path, dtype: str) -> None:
    """What belongs beside the weights: config, tokenizer, generation config, licences."""
    config = _json(inputs["base.weights"] / "config.json")
    config = {name: value for name, value in config.items() if name not in PATHS_IN_CONFIG}
    text = json.dumps(config | {"dtype": dtype}, indent=2, sort_keys=True) + "\n"
    (model / "config.json").write_text(text, encoding="utf-8")
    for file in sorted(inputs["base.weights"].iterdir()):
        licence = file.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))
        if licence or file.name == "generation_config.json":
            shutil.copyfile(file, model / file.name)
    for file in sorted(inputs["base.tokenizer"].iterdir()):
        if file.is_file() and file.name not in NOT_COPIED:
            shutil.copyfile(file, model / file.name)


def _summary(
    verdict: str, tried: Sequence[Verdict], kept: Verdict, evaluated: Measured, model_bytes: int
) -> Summary:
    return Summary(
        f"{kept.strategy}, loss {kept.loss:.3f} (base + adapter {evaluated.loss:.3f}), "
        f"{100 * kept.agreement:.0f} % same next tokens, {model_bytes / GIB:.2f} GiB; "
        f"evaluation: {verdict}",
        metrics={f"loss_{v.strategy}": v.loss for v in tried}
        | {f"agreement_{v.strategy}": v.agreement for v in tried}
        | {"loss_evaluated": evaluated.loss, "model_gib": model_bytes / GIB},
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
