"""Merge candidates: the merged weights of each strategy, compared with base + adapter.

Everything is in the stage's scratch folder, which a later run with the same key finds after a kill:
finished shards are not written again, and finished measurements are not repeated.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.core.models.device import Quantization, free_gpu, pick_device
from tasks.core.models.experts.forward import dequantized
from tasks.core.models.loading import attach_adapter, load_model
from tasks.core.models.packed_dataset import Window
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.core.models.trusted_code import is_trusted, trust
from tasks.core.progress import say
from tasks.core.settings.merge import MergeSettings
from tasks.core.system.atomic_write import write_text
from tasks.merging.adapter import Adapter
from tasks.merging.expert_tensors import ExpertTensors
from tasks.merging.rounding import generator_of, round_at_random
from tasks.merging.row_blocks import row_blocks
from tasks.merging.safetensors_io import TensorInfo, write_shards
from tasks.merging.strategies.protocol import MergeStrategy
from tasks.merging.verify import Measured, MergeCheck, compare, measure

WEIGHT_SUFFIX = ".weight"
MEASURED_FILE = "measured.json"


@dataclass(frozen=True)
class Trial:
    """Measurements of all candidates.

    Attributes:
        evaluated_loss: Of base + adapter as it was evaluated.
        sample_tokens: Trained tokens of the sample.
        checks: One for each strategy.
    """

    evaluated_loss: float
    sample_tokens: int
    checks: tuple[MergeCheck, ...]


@dataclass(frozen=True)
class Candidates:
    """What all candidates share.

    Attributes:
        settings: Of the merge.
        base: Folder of the base's weights.
        adapter_folder: Folder of the adapter.
        adapter: Its content.
        experts: Its updates of fused experts.
        shards: Tensors of each output file.
        strategies: To try.
        sample: Held-out samples.
        scratch: Folder for the weights and the measurements.
    """

    settings: MergeSettings
    base: Path
    adapter_folder: Path
    adapter: Adapter
    experts: ExpertTensors
    shards: Sequence[Sequence[TensorInfo]]
    strategies: Sequence[MergeStrategy]
    sample: Sequence[Window]
    scratch: Path

    def folder(self, strategy: str) -> Path:
        """Folder of a candidate's weights."""
        return self.scratch / f"model-{strategy}"

    def write_and_measure(self) -> Trial:
        """Write the merged weights of every strategy and measure them."""
        file = self.scratch / MEASURED_FILE
        if file.is_file():
            say("reusing the measurements of an interrupted merge")
            stored = json.loads(file.read_text(encoding="utf-8"))
            checks = tuple(MergeCheck(**check) for check in stored.pop("checks"))
            return Trial(**stored, checks=checks)
        evaluated = self._write()
        free_gpu()
        checks = tuple(self._check(strategy, evaluated) for strategy in self.strategies)
        trial = Trial(evaluated.loss, len(evaluated.tokens), checks)
        write_text(file, json.dumps(asdict(trial)))
        return trial

    def _write(self) -> Measured:
        """Write the merged weights of every strategy; measure base + adapter as evaluated."""
        base = self._load(self.base, self.settings.quantization)
        # Dequantize before the first forward pass: on a CPU with AVX512-BF16 it repacks the 4-bit
        # layers in place, and they no longer dequantize to themselves.
        quantized = {name: value for name, value in base.named_parameters() if _is_4bit(value)}
        traits = ModelTraits.read(self.base)
        dtype = getattr(torch, self.settings.dtype)
        experts = replace(self.experts, quantized=quantized)
        for strategy in self.strategies:
            folder = self.folder(strategy.name)
            folder.mkdir(parents=True, exist_ok=True)
            change = partial(
                merged_tensor,
                strategy=strategy,
                adapter=self.adapter,
                experts=experts,
                quantized=quantized,
                traits=traits,
                dtype=dtype,
            )
            write_shards(self.shards, folder, dtype, change, f"merging, {strategy.name}")
            shutil.copyfile(self.base / "config.json", folder / "config.json")
            traits.write(folder)
            if is_trusted(self.base):
                for file in sorted(self.base.glob("*.py")):
                    shutil.copyfile(file, folder / file.name)
                trust(folder)
        return self._measure_with_adapter(base, "base + adapter")

    def _check(self, strategy: MergeStrategy, evaluated: Measured) -> MergeCheck:
        """Load a candidate and compare it with the same base and the adapter beside it."""
        unmerged = evaluated
        if self.settings.quantization != "none" and not strategy.uses_quantized_base:
            base = self._load(self.base, "none")
            unmerged = self._measure_with_adapter(base, "16-bit base + adapter")
            del base
            free_gpu()
        model = self._load(self.folder(strategy.name), "none")
        merged = measure(model, self.sample, f"merged, {strategy.name}")
        del model
        free_gpu()
        return compare(
            strategy.name,
            merged,
            unmerged,
            evaluated.loss,
            tolerance_percent=self.settings.tolerance_percent,
            min_agreement=self.settings.min_agreement,
        )

    def _load(self, folder: Path, quantization: Quantization) -> Any:
        device = self.settings.check_device
        return load_model(
            folder,
            quantization=quantization,
            device=device,
            # auto is float32 for an unquantized model on a CPU, which a 3B model has no room for
            dtype="bfloat16" if pick_device(device).type == "cpu" else "auto",
            trust_remote_code=is_trusted(folder),
        )

    def _measure_with_adapter(self, base: Any, label: str) -> Measured:
        return measure(attach_adapter(base, self.adapter_folder), self.sample, label)


def merged_tensor(
    name: str,
    tensor: Tensor,
    strategy: MergeStrategy,
    adapter: Adapter,
    experts: ExpertTensors,
    quantized: Mapping[str, Any],
    traits: ModelTraits,
    dtype: torch.dtype,
) -> Tensor:
    """A tensor of the merged model; still to be rounded to `dtype`, if it is not bfloat16 already.

    Args:
        name: In the base's safetensors.
        tensor: Its value there.
        strategy: Selects the weight that the adapter is added to.
        adapter: The updates.
        experts: The updates of fused experts.
        quantized: The base's 4-bit parameters by name.
        traits: Of the base; they map its tensors' names to its modules'.
        dtype: Of the merged weights.
    """
    own = traits.module_of(name)
    weight = strategy.base_weight(tensor, lambda: _values(own, experts, quantized))
    update, delta = adapter.updates.get(own.removesuffix(WEIGHT_SUFFIX)), experts.delta(own)
    if own.endswith(WEIGHT_SUFFIX) and update is not None:
        return _by_rows(weight, update.apply, name, dtype)
    if delta is not None:
        added = delta.reshape(-1, delta.shape[-1])
        return _by_rows(weight, lambda part, rows: part.float() + added[rows], name, dtype)
    return weight


def _by_rows(
    weight: Tensor, change: Callable[[Tensor, slice], Tensor], name: str, dtype: torch.dtype
) -> Tensor:
    """A weight with `change(its rows, which rows)` applied to blocks of rows."""
    # float16 is eight times as fine, so that its nearest number keeps most of an update
    at_random = dtype == torch.bfloat16
    merged = torch.empty(weight.shape, dtype=dtype if at_random else torch.float32)
    source, target = (tensor.reshape(-1, weight.shape[-1]) for tensor in (weight, merged))
    generator = generator_of(name)
    for rows in row_blocks(*source.shape):
        values = change(source[rows], rows)
        target[rows] = round_at_random(values, generator) if at_random else values
    return merged


def _values(name: str, experts: ExpertTensors, quantized: Mapping[str, Any]) -> Tensor | None:
    """A dequantized weight; None if it is not quantized."""
    if name in quantized and name.endswith(WEIGHT_SUFFIX):
        return dequantized(quantized[name]).cpu()
    return experts.dequantized(name)


def _is_4bit(parameter: Any) -> bool:
    return getattr(parameter, "quant_state", None) is not None
