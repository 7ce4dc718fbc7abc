"""Fused experts in a merge: updates and 4-bit weights, tensor by tensor of the checkpoint.

PEFT's `ParamWrapper` adds an update to a fused parameter [experts, ...], of which the checkpoint
may store one matrix per expert. Which of an adapter's tensors belong to which parameter, and with
what scaling, PEFT itself decides: it puts the adapter on a model without storage.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor

from tasks.core.models.experts.checkpoint import parts_of
from tasks.core.models.experts.forward import dequantized, expected_warnings
from tasks.core.models.experts.fused import fused_weights, split_matrices
from tasks.core.models.loading import on_meta
from tasks.core.models.pretrained import read_config
from tasks.core.models.trusted_code import is_trusted


@dataclass(frozen=True)
class ParameterUpdate:
    """The update of one parameter.

    Attributes:
        a: [experts, rank, in].
        b: [experts, out, rank].
        scaling: Factor of B A.
        transposed: Whether the parameter is [experts, in, out] instead of [experts, out, in].
        matrix: Whether it is [out, in], as a router's; `experts` is 1 then.
    """

    a: Tensor
    b: Tensor
    scaling: float
    transposed: bool = False
    matrix: bool = False

    def delta(self) -> Tensor:
        """What is added to the parameter, float32."""
        delta = self.scaling * torch.bmm(self.b.float(), self.a.float())
        if self.matrix:
            return delta[0]
        return delta.transpose(1, 2) if self.transposed else delta


@dataclass(frozen=True)
class Target:
    """One parameter that an adapter changes by PEFT's `target_parameters`.

    Attributes:
        key: Prefix of the names of its tensors in the adapter.
        name: Full name of the parameter.
        experts: How many matrices it holds.
        scaling, transposed, matrix: As of its update.
    """

    key: str
    name: str
    experts: int
    scaling: float
    transposed: bool
    matrix: bool

    def update(self, a: Tensor, b: Tensor) -> ParameterUpdate:
        """The update of the adapter's two tensors."""
        a, b = split_matrices(a, b, self.experts)
        return ParameterUpdate(a, b, self.scaling, self.transposed, self.matrix)


def without_storage(base: Path) -> Any:
    """The base without its weights."""
    code = is_trusted(base)
    return on_meta(read_config(base, code).get_text_config(decoder=True), code)


def targets(adapter: Path, base: Path) -> list[Target]:
    """The parameters that an adapter's `target_parameters` select in its base."""
    config = LoraConfig.from_pretrained(adapter)
    config.lora_dropout = 0.0
    with torch.device("meta"), expected_warnings():
        tuned = get_peft_model(without_storage(base), config)
    return [
        Target(
            key=path,
            name=".".join(
                [*(part for part in path.split(".")[2:] if part != "base_layer"), w.parameter_name]
            ),
            experts=w.num_experts,
            scaling=w.scaling["default"],
            matrix=w.get_param().ndim == 2,
            transposed=bool(getattr(w.get_base_layer(), "is_transposed", False)),
        )
        for path, w in tuned.named_modules()
        if isinstance(w, ParamWrapper)
    ]


@dataclass
class ExpertTensors:
    """Updates and 4-bit values of fused parameters, by the names of the checkpoint's tensors.

    One layer's parameters are in memory at a time: a checkpoint's tensors are read in order.

    Attributes:
        updates: By the parameter's name.
        model: The base without storage; None if nothing is fused.
    """

    updates: Mapping[str, ParameterUpdate]
    model: Any = None
    quantized: Mapping[str, Any] = field(default_factory=dict)
    _parameters: dict[str, str] = field(default_factory=dict)
    _deltas: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    _values: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    _lock: Any = field(default_factory=Lock, init=False, repr=False)  # several threads merge

    def __post_init__(self) -> None:
        if self.model is None:
            return
        for name in {weight.name for weight in fused_weights(self.model)} | set(self.updates):
            parts = parts_of(self.model, {name: self.model.get_parameter(name)})
            self._parameters |= dict.fromkeys(parts, name)

    @classmethod
    def of(
        cls, base: Path, updates: Mapping[str, ParameterUpdate], experts: bool
    ) -> "ExpertTensors":
        """Of a base; nothing is fused if it has neither updates nor `experts` in 4 bit."""
        return cls(updates, without_storage(base) if updates or experts else None)

    @property
    def names(self) -> set[str]:
        """The tensors that updates belong to."""
        return {part for part, name in self._parameters.items() if name in self.updates}

    @property
    def largest_layer(self) -> int:
        """Bytes of one layer's fused parameters in 32 bit."""
        layers: dict[str, int] = {}
        for name in set(self._parameters.values()):
            path = name.rpartition(".")[0]
            layers[path] = layers.get(path, 0) + 4 * self.model.get_parameter(name).numel()
        return max(layers.values(), default=0)

    def delta(self, tensor: str) -> Tensor | None:
        """What is added to a tensor; None if it is not changed."""
        name = self._parameters.get(tensor, "")
        if name not in self.updates:
            return None
        return self._part(self._deltas, tensor, name, self.updates[name].delta)

    def dequantized(self, tensor: str) -> Tensor | None:
        """A tensor's dequantized value; None if it is not quantized."""
        name = self._parameters.get(tensor, "")
        if name not in self.quantized:
            return None
        return self._part(
            self._values, tensor, name, lambda: dequantized(self.quantized[name]).cpu()
        )

    def _part(
        self, known: dict[str, dict[str, Tensor]], tensor: str, name: str, compute: Any
    ) -> Tensor:
        with self._lock:
            if name not in known:
                path = name.rpartition(".")[0]
                for other in [n for n in known if n.rpartition(".")[0] != path]:
                    del known[other]
                known[name] = parts_of(self.model, {name: compute()})
            return known[name][tensor]
