"""A model in the fast path's form: plain tensors and numbers.

Linear layers that share an input form a group, which runs as one matrix product (see `operands`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tasks.training.fast.ops.operands import PAD, Activation, Heads, NormWeights


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
    """One decoder layer: norms, four groups, and what the steps between them are.

    Attributes:
        norm1: Of attention's input; None: it reads the residual stream itself.
        norm2: Of the MLP's input, likewise.
        after1: Norm of attention's output, before it is added to the residual stream.
        after2: Of the MLP's output, likewise.
        activation: Of the MLP.
        head_norms: Of queries and keys: of each head, or of all together.
        parallel: The MLP reads the layer's input instead of attention's output.
        rotation: Which of the model's tables rotates queries and keys; None: they stay.
        window: Tokens that a token attends to, itself included; 0: all before it.
        branch_scale: What attention and MLP are multiplied by.
    """

    norm1: NormWeights | None
    qkv: LinearGroup
    out: LinearGroup
    norm2: NormWeights | None
    gate_up: LinearGroup
    down: LinearGroup
    activation: Activation
    after1: NormWeights | None = None
    after2: NormWeights | None = None
    head_norms: tuple[NormWeights, NormWeights] | None = None
    parallel: bool = False
    rotation: str | None = ""
    window: int = 0
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
class LastStep:
    """From the residual stream to the logits.

    Attributes:
        norm: Before the head; its weights include the logits' multiplier.
        weight: [vocabulary, hidden].
        bias: [vocabulary] or None.
        cap: Soft cap of the logits; 0 without one.
    """

    norm: NormWeights
    weight: Tensor
    bias: Tensor | None
    cap: float


@dataclass(frozen=True)
class FastModel:
    """A model in the fast path's form.

    Attributes:
        embedding: Token embedding.
        positions: Embedding of positions, or None.
        rotary: The model's own module; it computes the tables of rotations. None without them.
        layers: All decoder layers.
        last: Norm and head.
        heads: Shape of attention, the same in all layers.
        hidden: Features of the residual stream.
        scale: LoRA's alpha / rank.
        dropout: LoRA's dropout rate.
        first_trained: First layer with LoRA; nothing before it needs a gradient.
        embedding_scale: What embedded tokens are multiplied by.
    """

    embedding: nn.Module
    positions: nn.Module | None
    rotary: nn.Module | None
    layers: tuple[LayerWeights, ...]
    last: LastStep
    heads: Heads
    hidden: int
    scale: float
    dropout: float
    first_trained: int
    embedding_scale: float = 1.0

    @property
    def head(self) -> Tensor:
        """[vocabulary, hidden]."""
        return self.last.weight

    @property
    def inner(self) -> int:
        """F, features of the MLP."""
        return self.layers[0].down.inner

    @property
    def gate_up(self) -> int:
        """Outputs of the MLP's first group: 2 F if it is gated, else F."""
        return self.layers[0].gate_up.rows

    @property
    def unnormed_width(self) -> int:
        """Features of q, k and v that are also saved before their norms; 0 without norms."""
        return self.heads.width if self.layers[0].head_norms else 0

    @property
    def branches(self) -> bool:
        """Whether outputs of attention and MLP are saved for the norms after them."""
        return self.layers[0].after1 is not None

    @property
    def rotations(self) -> tuple[str, ...]:
        """Tables of rotations that the layers use."""
        return tuple(sorted({one.rotation for one in self.layers if one.rotation is not None}))

    @property
    def windows(self) -> tuple[int, ...]:
        """Sliding windows that the layers use, 0 for none."""
        return tuple(sorted({layer.window for layer in self.layers}))

    def widest(self, kind: str) -> int:
        """Columns of the widest extended input of a kind of group."""
        widths: list[int] = [getattr(layer, kind).width for layer in self.layers]
        return max(widths)
