"""A LoRA adapter in PEFT's format, applied to single weights.

In: adapter_config.json and adapter_model.safetensors. Out: `Update.apply(weight)` by module name.
Computed in 32 bit, by blocks of rows, so the model is never in memory as a whole. PEFT's own merge
needs the whole model, and would round a 4-bit layer back to 4 bit.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file
from torch import Tensor

from tasks.core.errors import PipelineError
from tasks.merging.expert_tensors import ParameterUpdate, Target, targets

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
A, B, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"
# settings that change more than W + scaling * B A, or that change the base before the training
UNSUPPORTED = (
    "modules_to_save",
    "trainable_token_indices",
    "layer_replication",
    "fan_in_fan_out",
    "lora_bias",
    "alora_invocation_tokens",
    "arrow_config",
    "use_qalora",
    "use_bdlora",
    "kasa_config",
    "loftq_config",
    "lora_ga_config",
    "monteclora_config",
    "velora_config",
)
PLAIN_INITIALIZATIONS = (True, False, "gaussian", "orthogonal", "eva", "mora")


@dataclass(frozen=True)
class Update:
    """The update of one linear layer.

    Attributes:
        a: [rank, in].
        b: [out, rank].
        scaling: Factor of B A.
        magnitude: [out], DoRA's norm of every output row; None for plain LoRA.
    """

    a: Tensor
    b: Tensor
    scaling: float
    magnitude: Tensor | None = None

    def apply(self, weight: Tensor, rows: slice = slice(None)) -> Tensor:
        """The merged weight [out, in], or some of its rows; float32.

        Args:
            weight: The base's weight, or these rows of it.
            rows: Which rows.
        """
        merged = weight.float() + self.scaling * (self.b[rows].float() @ self.a.float())
        if self.magnitude is not None:
            norm = torch.linalg.norm(merged, dim=1)
            merged *= (self.magnitude[rows].float() / norm)[:, None]
        return merged


@dataclass(frozen=True)
class Adapter:
    """An adapter.

    Attributes:
        updates: Of linear layers, by module name.
        parameters: Of fused experts and other parameters that it names, by parameter name.
        settings: For the model card.
    """

    updates: Mapping[str, Update]
    parameters: Mapping[str, ParameterUpdate]
    settings: Mapping[str, Any]


def read_adapter(folder: Path, base: Path) -> Adapter:
    """Read an adapter of a base.

    Raises:
        PipelineError: A file is missing, or the adapter does more than add B A to linear layers and
            fused experts.
    """
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise PipelineError(f"the adapter has no {name}", "Run the stage train again.")
    settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    _check_mergeable(settings)
    tensors = load_file(folder / TENSORS)
    chosen = targets(folder, base) if settings.get("target_parameters") else []
    parameters = {target.name: _parameter_update(target, tensors) for target in chosen}
    modules = sorted(name.removesuffix(A) for name in tensors if name.endswith(A))
    updates = {
        module.removeprefix(PREFIX): Update(
            a=tensors.pop(module + A),
            b=tensors.pop(module + B),
            scaling=_scaling(module.removeprefix(PREFIX), settings),
            magnitude=tensors.pop(module + MAGNITUDE, None),
        )
        for module in modules
        if module + B in tensors
    }
    if tensors or not (updates or parameters):
        found = f"{len(tensors)} tensors such as {min(tensors)}" if tensors else "no LoRA tensors"
        raise PipelineError(
            f"the adapter holds {found}, which belong to no LoRA of a linear layer or of experts",
            "Train with LoRA or DoRA on linear layers and experts only.",
        )
    return Adapter(updates, parameters, settings)


def _parameter_update(target: Target, tensors: dict[str, Tensor]) -> ParameterUpdate:
    """The update of one parameter; takes its tensors out of the adapter's."""
    try:
        return target.update(tensors.pop(target.key + A), tensors.pop(target.key + B))
    except KeyError as error:
        raise PipelineError(
            f"the adapter has no tensor {error.args[0]}, which its target_parameters need",
            "Train again, or save the adapter with the version of PEFT that trained it.",
        ) from error


def _check_mergeable(settings: Mapping[str, Any]) -> None:
    if settings.get("peft_type") != "LORA":
        raise PipelineError(
            f"the adapter has the type {settings.get('peft_type')}; only LORA can be merged",
            "Train with LoRA or DoRA.",
        )
    unsupported = [name for name in UNSUPPORTED if settings.get(name)]
    if settings.get("bias", "none") != "none":
        unsupported.append(f"bias={settings['bias']}")
    if settings.get("init_lora_weights", True) not in PLAIN_INITIALIZATIONS:
        unsupported.append(f"init_lora_weights={settings['init_lora_weights']}")
    if unsupported:
        raise PipelineError(
            f"the adapter uses {', '.join(unsupported)}, which changes more than linear weights",
            "Train without it, or merge with PEFT's merge_and_unload on a machine with the memory.",
        )


def _scaling(module: str, settings: Mapping[str, Any]) -> float:
    """alpha / r, or alpha / sqrt(r) for rank-stabilized LoRA; patterns hold exceptions."""
    ranks, alphas = settings.get("rank_pattern") or {}, settings.get("alpha_pattern") or {}
    rank = ranks.get(get_pattern_key(ranks.keys(), module), settings["r"])
    alpha = alphas.get(get_pattern_key(alphas.keys(), module), settings["lora_alpha"])
    return float(alpha / math.sqrt(rank)) if settings.get("use_rslora") else float(alpha / rank)
