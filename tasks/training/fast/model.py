"""What the fast path needs of a model, taken out of it once; and why it does not fit a model.

In: a PEFT model of decoder layers as Llama and StableLM have them. Out: weights, LoRA matrices and
shapes as plain tensors, or a reason in words, for which the plain path is taken.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tasks.core.models.architectures.registry import ARCHITECTURES
from tasks.core.models.packed_forward import base_model, head_of
from tasks.training.fast.torch_ops import PAD, Heads

OWN_CODE = "transformers_modules"  # where transformers puts a model's own Python files
KNOWN_LAYERS = tuple(known.layer.class_name for known in ARCHITECTURES)
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
_QUANTIZED_BLOCK = 64  # values that share a scale; rows must hold whole blocks


class Unsupported(Exception):  # noqa: N818 - a finding, not a fault
    """Why a model can't take the fast path."""


@dataclass(frozen=True)
class Member:
    """One linear layer of a group.

    Attributes:
        weight: [n, K], 4-bit or plain.
        bias: [n] or None.
        rows: Rows of the group's weight that are its own.
        lora: Place among the group's LoRA layers, or None.
        b_grad: float32[n, r], B's gradient.
        b_at: Where B begins in the flat parameters.
    """

    weight: Any
    bias: Tensor | None
    rows: slice
    lora: int | None
    b_grad: Tensor | None
    b_at: int


@dataclass(frozen=True)
class Group:
    """Linear layers that share an input, run as one product.

    Attributes:
        members: In order of their rows.
        inner: K, features of the input.
        rows: n, features of all outputs.
        rank: LoRA's rank; 0 where no member has LoRA.
        loras: Members with LoRA.
        a_grad: float32[loras * rank, K], A's gradients one below the other.
        a_at: Where the A begin in the flat parameters.
    """

    members: tuple[Member, ...]
    inner: int
    rows: int
    rank: int
    loras: int
    a_grad: Tensor | None
    a_at: int

    @property
    def width(self) -> int:
        """Columns of the extended input and weight."""
        return self.inner + -(-self.loras * self.rank // PAD) * PAD

    @cached_property
    def bias(self) -> Tensor | None:
        """Bias of all rows; None where no member has one."""
        if all(member.bias is None for member in self.members):
            return None
        parts = [
            torch.zeros(m.rows.stop - m.rows.start, device=m.weight.device)
            if m.bias is None
            else m.bias
            for m in self.members
        ]
        return torch.cat(parts)


@dataclass(frozen=True)
class Norm:
    """LayerNorm where `layer_norm`, else RMSNorm."""

    weight: Tensor
    bias: Tensor | None
    eps: float
    layer_norm: bool


@dataclass(frozen=True)
class Layer:
    """One decoder layer: norms and four groups."""

    norm1: Norm
    qkv: Group
    out: Group
    norm2: Norm
    gate_up: Group
    down: Group

    @property
    def groups(self) -> tuple[Group, Group, Group, Group]:
        """All four, in the order of the forward pass."""
        return self.qkv, self.out, self.gate_up, self.down

    @property
    def trained(self) -> bool:
        """Whether any of its linear layers has LoRA."""
        return any(group.loras for group in self.groups)


@dataclass(frozen=True)
class FastModel:
    """A whole model for the fast path."""

    embedding: nn.Module
    rotary: nn.Module
    layers: tuple[Layer, ...]
    norm: Norm
    head: Tensor
    heads: Heads
    hidden: int
    inner: int
    scale: float
    dropout: float
    first_trained: int


def parameter_order(name: str) -> tuple[Any, ...]:
    """Sorting key that lays LoRA matrices of layers sharing an input beside each other."""
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.startswith("lora_")), len(parts) - 1)
    member = parts[at - 1]
    order = (*ATTENTION, "o_proj", *MLP, "down_proj")
    place = order.index(member) if member in order else len(order)
    path = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts[: at - 1])
    return path, parts[at], place, name


def take_apart(model: Any, places: dict[str, int]) -> FastModel:
    """Take a PEFT model apart for the fast path.

    Args:
        model: With LoRA, its parameters already in flat tensors.
        places: name of a parameter -> where it begins in the flat parameters.

    Raises:
        Unsupported: With the reason.
    """
    base = base_model(model)
    decoder, config = base.base_model, base.config
    lora = model.peft_config["default"]
    if any(type(module).__module__.startswith(OWN_CODE) for module in base.modules()):
        raise Unsupported("code that comes with the model")  # it may call its layers as it likes
    _check_config(config, lora)
    layers = list(decoder.layers)
    names = {id(module): name for name, module in model.named_modules()}
    built = tuple(_layer(layer, names, places) for layer in layers)
    trained = [i for i, layer in enumerate(built) if layer.trained]
    if sum(p.numel() for p in model.parameters() if p.requires_grad) != _lora_size(built):
        raise Unsupported("parameters other than LoRA's are trained")
    head = head_of(model)
    if getattr(head, "bias", None) is not None:
        raise Unsupported("the head has a bias")
    attention = layers[0].self_attn
    size = attention.head_dim
    rotated = 2 * decoder.rotary_emb.inv_freq.shape[0]
    heads = Heads(config.num_attention_heads, config.num_key_value_heads, size, rotated)
    if attention.scaling != size**-0.5:
        raise Unsupported("attention is scaled in its own way")
    return FastModel(
        embedding=base.get_input_embeddings(),
        rotary=decoder.rotary_emb,
        layers=built,
        norm=_norm(decoder.norm),
        head=head.weight,
        heads=heads,
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        scale=_scale(layers, trained),
        dropout=float(lora.lora_dropout),
        first_trained=trained[0],
    )


def _check_config(config: Any, lora: Any) -> None:
    """Raise for what is not a plain decoder with plain LoRA."""
    if lora.use_dora:
        raise Unsupported("DoRA")
    if lora.bias != "none" or lora.modules_to_save or lora.lora_bias:
        raise Unsupported("LoRA with biases or extra trained modules")
    if getattr(config, "hidden_act", "silu") != "silu":
        raise Unsupported(f"activation {config.hidden_act}")
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise Unsupported("sliding window attention")
    for name in ("attention_dropout", "hidden_dropout"):
        if getattr(config, name, 0):
            raise Unsupported(f"{name} of the base model")


def _layer(layer: Any, names: dict[int, str], places: dict[str, int]) -> Layer:
    kind = type(layer).__name__
    if kind not in KNOWN_LAYERS:
        raise Unsupported(f"layers of kind {kind}")
    if getattr(layer, "use_parallel_residual", False):
        raise Unsupported("parallel residuals")
    attention, mlp = layer.self_attn, layer.mlp
    if getattr(attention, "qk_layernorm", False) or hasattr(attention, "q_norm"):
        raise Unsupported("norms on queries and keys")
    for module in (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        if getattr(module, "bias", None) is not None:
            raise Unsupported("biases outside of q, k and v")

    def group(parent: Any, *members: str) -> Group:
        return _group([getattr(parent, name) for name in members], names, places)

    return Layer(
        norm1=_norm(layer.input_layernorm),
        qkv=group(attention, *ATTENTION),
        out=group(attention, "o_proj"),
        norm2=_norm(layer.post_attention_layernorm),
        gate_up=group(mlp, *MLP),
        down=group(mlp, "down_proj"),
    )


def _norm(module: Any) -> Norm:
    if isinstance(module, nn.LayerNorm):
        return Norm(module.weight, module.bias, module.eps, True)
    return Norm(module.weight, None, module.variance_epsilon, False)


def _group(modules: list[Any], names: dict[int, str], places: dict[str, int]) -> Group:
    """A group from its linear layers; checks that their A lie one below the other."""
    members, start, rank, loras = [], 0, 0, 0
    a_at, a_grads = -1, []
    for module in modules:
        has = hasattr(module, "lora_A")
        linear = module.base_layer if has else module
        state = getattr(linear.weight, "quant_state", None)
        size, inner = state.shape if state is not None else linear.weight.shape
        if state is not None and inner % _QUANTIZED_BLOCK:
            raise Unsupported(f"{inner} features, not a multiple of {_QUANTIZED_BLOCK}")
        b_grad, b_at = None, -1
        if has:
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            name = names[id(module)]
            at = places[f"{name}.lora_A.default.weight"]
            b_grad, b_at = b.grad, places[f"{name}.lora_B.default.weight"]
            rank = a.shape[0]
            a_at = at if a_at < 0 else a_at
            if at != a_at + loras * rank * inner:
                raise Unsupported("LoRA matrices that do not lie beside each other")
            a_grads.append(a.grad)
        members.append(
            Member(
                linear.weight,
                linear.bias,
                slice(start, start + size),
                loras if has else None,
                b_grad,
                b_at,
            )
        )
        start += size
        loras += has
    a_grad = None
    if a_grads:
        first = a_grads[0]
        a_grad = first.as_strided((loras * rank, inner), (inner, 1))
    return Group(tuple(members), inner, start, rank, loras, a_grad, a_at)


def _lora_size(layers: tuple[Layer, ...]) -> int:
    return sum(
        group.loras * group.rank * group.inner
        + sum(m.b_grad.numel() for m in group.members if m.b_grad is not None)
        for layer in layers
        for group in layer.groups
    )


def _scale(layers: list[Any], trained: list[int]) -> float:
    """LoRA's scale, the same everywhere."""
    if not trained:
        raise Unsupported("no LoRA layer")
    scales = {
        module.scaling["default"]
        for layer in layers
        for module in layer.modules()
        if hasattr(module, "lora_A")
    }
    if len(scales) > 1:
        raise Unsupported("LoRA layers of different scale")
    return float(scales.pop())
