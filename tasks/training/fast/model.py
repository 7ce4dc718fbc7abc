"""Extracts weights, LoRA matrices and shapes from a PEFT model for the fast path.

In: a PEFT model with pre-norm decoder layers and a gated MLP, as in Llama; the table of
architectures names what else its layers have. Out: a `FastModel` of plain tensors, or
`Unsupported` with the reason, upon which the autograd stepper is used. Anything that is not
checked here would train wrongly without an error, so a model is supported only if its layer class
is known and every deviation from that form is excluded.

Linear layers that share an input form a group, which runs as one matrix product (see `operands`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tasks.core.models.architectures.protocol import LinearLayer
from tasks.core.models.architectures.registry import ARCHITECTURES, PLAIN_IF_SET, applied_window
from tasks.core.models.packed_forward import base_model, head_of
from tasks.training.fast.operands import PAD, Heads, NormWeights

REMOTE_CODE = "transformers_modules"  # package in which transformers imports a model's own code
# decoder layer classes of transformers that have exactly the form of `LayerWeights`
SUPPORTED_LAYERS = {known.layer.class_name: known.layer for known in ARCHITECTURES}
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
_QUANTIZED_BLOCK = 64  # NF4 values that share a scale; the kernel needs whole blocks per row


class Unsupported(Exception):  # noqa: N818 - selects the other stepper; no failure
    """Why the fast path does not support a model."""


@dataclass(frozen=True)
class LinearMember:
    """One linear layer of a group.

    Attributes:
        weight: [n, K], 4-bit or not quantized.
        bias: [n] or None.
        rows: Its rows of the group's weight.
        lora: Index among the group's LoRA layers, or None without LoRA.
        b_grad: float32[n, r], a view of the flat gradient, or None.
        b_at: Offset of B in the flat parameters; -1 without LoRA.
    """

    weight: Any
    bias: Tensor | None
    rows: slice
    lora: int | None
    b_grad: Tensor | None
    b_at: int


@dataclass(frozen=True)
class LinearGroup:
    """Linear layers that share an input and run as one product.

    Attributes:
        members: In the order of their rows.
        inner: K, features of the input.
        rows: n, output features of all members.
        rank: LoRA's rank; 0 without LoRA.
        loras: Number of members with LoRA.
        a_grad: float32[loras * rank, K], the members' A gradients as one view of the flat gradient.
        a_at: Offset of the first A in the flat parameters; the others follow directly.
    """

    members: tuple[LinearMember, ...]
    inner: int
    rows: int
    rank: int
    loras: int
    a_grad: Tensor | None
    a_at: int

    @property
    def width(self) -> int:
        """Columns of the extended input and weight: K plus LoRA's columns, padded to `PAD`."""
        return self.inner + -(-self.loras * self.rank // PAD) * PAD

    @cached_property
    def bias(self) -> Tensor | None:
        """Bias of all rows, zero for members without one; None if no member has one."""
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
class LayerWeights:
    """One decoder layer: norms and four groups.

    Attributes:
        head_norms: Of the heads of queries and keys.
        parallel: The MLP reads the layer's input instead of attention's output.
        rotates: Queries and keys are rotated.
        branch_scale: What attention and MLP are multiplied by.
    """

    norm1: NormWeights
    qkv: LinearGroup
    out: LinearGroup
    norm2: NormWeights
    gate_up: LinearGroup
    down: LinearGroup
    head_norms: tuple[NormWeights, NormWeights] | None = None
    parallel: bool = False
    rotates: bool = True
    branch_scale: float = 1.0

    @property
    def groups(self) -> tuple[LinearGroup, LinearGroup, LinearGroup, LinearGroup]:
        """All four, in the order of the forward pass."""
        return self.qkv, self.out, self.gate_up, self.down

    @property
    def trained(self) -> bool:
        """Whether any of its linear layers has LoRA."""
        return any(group.loras for group in self.groups)


@dataclass(frozen=True)
class FastModel:
    """A model in the fast path's form.

    Attributes:
        embedding: Token embedding.
        rotary: The model's own module; it computes RoPE's tables.
        layers: All decoder layers.
        norm: Before the head.
        head: [vocabulary, hidden].
        heads: Shape of attention, the same in all layers.
        hidden: Features of the residual stream.
        inner: F, features of the MLP.
        scale: LoRA's alpha / rank.
        dropout: LoRA's dropout rate.
        first_trained: First layer with LoRA; nothing before it needs a gradient.
        embedding_scale: What embedded tokens are multiplied by.
        rotation_scale: What the tables of the rotation are multiplied by, so that the product of
            query and key has the model's own scale.
    """

    embedding: nn.Module
    rotary: nn.Module
    layers: tuple[LayerWeights, ...]
    norm: NormWeights
    head: Tensor
    heads: Heads
    hidden: int
    inner: int
    scale: float
    dropout: float
    first_trained: int
    embedding_scale: float = 1.0
    rotation_scale: float = 1.0

    @property
    def unnormed_width(self) -> int:
        """Features of q, k and v that are also saved before their norms; 0 without norms."""
        return self.heads.width if self.layers[0].head_norms else 0

    def widest(self, kind: str) -> int:
        """Columns of the widest extended input of a kind of group."""
        widths: list[int] = [getattr(layer, kind).width for layer in self.layers]
        return max(widths)


def parameter_order(name: str) -> tuple[Any, ...]:
    """Sort key of parameters that makes the A matrices of a group adjacent.

    Order: parent module, lora_A before lora_B, the member's position in its group. Numbers in the
    path sort as numbers, so that layer 10 comes after layer 9.
    """
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.startswith("lora_")), len(parts) - 1)
    member = parts[at - 1]
    order = (*ATTENTION, "o_proj", *MLP, "down_proj")
    place = order.index(member) if member in order else len(order)
    path = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts[: at - 1])
    return path, parts[at], place, name


def extract_model(
    model: Any, offsets: dict[str, int], longest_row: Callable[[], int] | None = None
) -> FastModel:
    """Extract what the fast path needs.

    Args:
        model: With LoRA; its parameters are in flat tensors already.
        offsets: name of a parameter -> its offset in the flat parameters.
        longest_row: Tokens of the longest sample: a sliding window of that length has no effect.

    Raises:
        Unsupported: With the reason.
    """
    base = base_model(model)
    decoder, config = base.base_model, base.config
    lora = model.peft_config["default"]
    if any(type(module).__module__.startswith(REMOTE_CODE) for module in base.modules()):
        raise Unsupported("code that comes with the model")
    _check_config(config, lora, longest_row)
    layers = list(getattr(decoder, "layers", ()))
    if not layers:
        raise Unsupported(f"decoders of kind {type(decoder).__name__}")
    names = {id(module): name for name, module in model.named_modules()}
    built = tuple(_layer(layer, names, offsets) for layer in layers)
    trained = [i for i, layer in enumerate(built) if layer.trained]
    # a trained parameter that the fast path does not know would never get a gradient
    if sum(p.numel() for p in model.parameters() if p.requires_grad) != _lora_size(built):
        raise Unsupported("parameters other than LoRA's are trained")
    head, form = head_of(model), SUPPORTED_LAYERS[type(layers[0]).__name__]
    if not getattr(base, "linear_head", True) and not form.logits_divisor:
        raise Unsupported("the model scales or caps its logits")
    if getattr(head, "bias", None) is not None:
        raise Unsupported("the head has a bias")
    attention = layers[0].self_attn
    size = attention.head_dim
    rotated = 2 * decoder.rotary_emb.inv_freq.shape[0]
    heads = Heads(config.num_attention_heads, config.num_key_value_heads, size, rotated)
    scale = attention.scaling * size**0.5
    if abs(scale - 1) > 1e-6 and (scale <= 0 or rotated < size or not all_rotate(built)):
        raise Unsupported("attention is scaled by another factor")
    return FastModel(
        embedding=base.get_input_embeddings(),
        rotary=decoder.rotary_emb,
        layers=built,
        norm=_divided(_norm(decoder.norm), _field(config, form.logits_divisor)),
        head=head.weight,
        heads=heads,
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        scale=_scale(layers, trained),
        dropout=float(lora.lora_dropout),
        first_trained=trained[0],
        embedding_scale=_field(config, form.embedding_scale),
        rotation_scale=1.0 if abs(scale - 1) <= 1e-6 else scale**0.5,
    )


def all_rotate(layers: tuple[LayerWeights, ...]) -> bool:
    """Whether all layers rotate queries and keys."""
    return all(layer.rotates for layer in layers)


def _field(owner: Any, name: str) -> float:
    return float(getattr(owner, name)) if name else 1.0


def _divided(norm: NormWeights, divisor: float) -> NormWeights:
    """The last norm with logits divided by `divisor`, as the head is linear."""
    if divisor == 1.0:
        return norm
    bias = None if norm.bias is None else norm.bias.float() / divisor
    return replace(norm, weight=norm.weight.float() / divisor, bias=bias)


def _check_config(config: Any, lora: Any, longest_row: Callable[[], int] | None) -> None:
    """Raise for options of model or LoRA that the fast path does not implement."""
    if lora.use_dora:
        raise Unsupported("DoRA")
    if lora.bias != "none" or lora.modules_to_save or lora.lora_bias:
        raise Unsupported("LoRA with biases or extra trained modules")
    if getattr(config, "hidden_act", "silu") != "silu":
        raise Unsupported(f"activation {config.hidden_act}")
    if window := applied_window(config):
        longest = longest_row() if longest_row else 2**31
        if window < longest:
            raise Unsupported(f"a sliding window of {window} tokens, and rows of up to {longest}")
    for name in PLAIN_IF_SET:
        if getattr(config, name, 0):
            raise Unsupported(f"{name} of the base model")


def _layer(layer: Any, names: dict[int, str], offsets: dict[str, int]) -> LayerWeights:
    kind = type(layer).__name__
    if kind not in SUPPORTED_LAYERS:
        raise Unsupported(f"layers of kind {kind}")
    form, attention, mlp = SUPPORTED_LAYERS[kind], layer.self_attn, layer.mlp
    if hasattr(attention, "q_norm") and not form.head_norms:
        raise Unsupported("norms on queries and keys")
    parallel = bool(form.parallel and getattr(layer, form.parallel))

    def group(parent: Any, members: tuple[LinearLayer, ...]) -> LinearGroup:
        return _group([getattr(parent, member.name) for member in members], names, offsets)

    return LayerWeights(
        norm1=_norm(layer.input_layernorm),
        qkv=group(attention, form.qkv),
        out=group(attention, form.out),
        norm2=_norm(layer.input_layernorm if parallel else layer.post_attention_layernorm),
        gate_up=group(mlp, form.gate_up),
        down=group(mlp, form.down),
        head_norms=(_norm(attention.q_norm), _norm(attention.k_norm)) if form.head_norms else None,
        parallel=parallel,
        rotates=bool(getattr(attention, form.rotates)) if form.rotates else True,
        branch_scale=_field(layer, form.branch_scale),
    )


def _norm(module: Any) -> NormWeights:
    if isinstance(module, nn.LayerNorm):
        return NormWeights(module.weight, module.bias, module.eps, True)
    return NormWeights(module.weight, None, module.variance_epsilon, False)


def _group(modules: list[Any], names: dict[int, str], offsets: dict[str, int]) -> LinearGroup:
    """A group from its linear layers; checks that their A matrices are adjacent."""
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
            at = offsets[f"{name}.lora_A.default.weight"]
            b_grad, b_at = b.grad, offsets[f"{name}.lora_B.default.weight"]
            rank = a.shape[0]
            a_at = at if a_at < 0 else a_at
            if at != a_at + loras * rank * inner:
                raise Unsupported("LoRA matrices that are not adjacent")
            a_grads.append(a.grad)
        members.append(
            LinearMember(
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
        first = a_grads[0]  # the others follow in memory, as checked above
        a_grad = first.as_strided((loras * rank, inner), (inner, 1))
    return LinearGroup(tuple(members), inner, start, rank, loras, a_grad, a_at)


def _lora_size(layers: tuple[LayerWeights, ...]) -> int:
    return sum(
        group.loras * group.rank * group.inner
        + sum(m.b_grad.numel() for m in group.members if m.b_grad is not None)
        for layer in layers
        for group in layer.groups
    )


def _scale(layers: list[Any], trained: list[int]) -> float:
    """LoRA's scale, which must be the same in all layers."""
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
