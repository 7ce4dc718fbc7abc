"""The fast path: one optimizer step's forward and backward without autograd.

In: a model that `fast_model` can take apart. Out: gradients in the flat gradient tensor, as the
plain path would leave them. It is fast for four reasons: the layers that share an input run as one
matrix product with LoRA inside it; nothing that the frozen base would need a gradient for is
computed; attention knows the samples' bounds, not a mask; and all memory is laid out before the
first step. What it trains is held against transformers and peft by tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.core.models.packed_forward import WindowTensors
from tasks.training.fast.layer import (
    Call,
    LayerPass,
    Saved,
    Scratch,
    chunks,
    rows,
)
from tasks.training.fast.model import FastModel, Layer, take_apart
from tasks.training.fast.torch_ops import Bounds, TorchOps, mix
from tasks.training.steppers.autograd_stepper import window_seed
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.step_size import less

MLP_CHUNK = 8192  # tokens of an MLP at one time; a longer window takes turns
HEAD_VALUES = 2**26  # logits that exist at one time


@dataclass(frozen=True)
class _Stream:
    """The residual stream before every trained layer and at the end.

    Attributes:
        device: All of it; or two buffers that take turns, where it waits in `host`.
        host: Pinned memory of the CPU, or nothing.
    """

    device: tuple[Tensor, ...]
    host: tuple[Tensor, ...]

    def at(self, place: int, tokens: int) -> Tensor:
        """Where the stream at `place` is on the device."""
        return self.device[place % len(self.device)][:tokens]

    def leave(self, place: int, tokens: int) -> None:
        """Keep the stream at `place` for the backward pass."""
        if self.host:
            self.host[place][:tokens].copy_(self.at(place, tokens), non_blocking=True)

    def back(self, place: int, tokens: int) -> Tensor:
        """The stream at `place` again."""
        x = self.at(place, tokens)
        return x.copy_(self.host[place][:tokens], non_blocking=True) if self.host else x


@dataclass(frozen=True)
class _Buffers:
    """Everything the steps write to, for windows of at most `tokens`."""

    tokens: int
    stream: _Stream
    saved: tuple[Saved, ...]
    scratch: Scratch
    grad: Tensor
    logits: Tensor


class FastStepper:
    """Runs windows through a model by hand-written forward and backward passes.

    Args:
        model: A PEFT model; its parameters are in `flat`.
        flat: The trained parameters, laid out in `fast_model.parameter_order`.
        max_tokens: Tokens of the longest window.
        kept_layers: Layers that keep activations, counted from the last; None: all.
        offload: The residual stream waits for the backward pass in the CPU's memory.
        ops: The operations; None: GPU kernels on CUDA, PyTorch elsewhere.

    Raises:
        Unsupported: The model does not fit; the message says why.
    """

    name = "fast"

    def __init__(
        self,
        model: Any,
        flat: FlatParameters,
        *,
        max_tokens: int,
        kept_layers: int | None = None,
        offload: bool = False,
        ops: Any = None,
    ) -> None:
        self.parts = take_apart(model, flat.places)
        self._flat = flat
        self._device = flat.values.device
        self._dtype = self.parts.head.dtype
        self._ops = ops if ops is not None else pick_ops(self._device)
        self.attention = type(self._ops).__name__
        self._offload = offload
        self.layers = len(self.parts.layers) - self.parts.first_trained
        self._values = torch.empty_like(flat.values, dtype=self._dtype)
        self.resize(self.layers if kept_layers is None else kept_layers, max_tokens)

    def resize(self, kept_layers: int, window_tokens: int) -> None:
        """Keep so many layers' activations from the next window on, of at most so many tokens."""
        self.kept_layers = min(kept_layers, self.layers)
        self.window_tokens = window_tokens
        self._room: _Buffers | None = None  # made for the next window

    def shrink(self) -> bool:
        """Take less memory from now on; False where there is nothing left to give."""
        smaller = less(self.kept_layers, self.window_tokens)
        if smaller is not None:
            self.resize(*smaller)
        return smaller is not None

    def layer_bytes(self) -> int:
        """What one more kept layer takes."""
        return kept_bytes(self.parts, self.window_tokens)

    @torch.no_grad()
    def run(self, windows: Sequence[WindowTensors], trained_tokens: int, seed: int) -> Tensor:
        """Add the gradients of the mean loss over `trained_tokens`; returns the summed loss.

        See `plain.PlainStepper.run`; the dropout masks are other ones of the same rate.
        """
        self._values.copy_(self._flat.values)
        total = torch.zeros((), dtype=torch.float32, device=self._device)
        for place, window in enumerate(windows):
            if window.trained_tokens:
                total += self._window(window, trained_tokens, window_seed(seed, place))
        return total

    @torch.no_grad()
    def measure(self, window: WindowTensors) -> tuple[Tensor, Tensor]:
        """Loss and hit of each trained token, without dropout; see `plain.PlainStepper.measure`."""
        self._values.copy_(self._flat.values)
        _, last = self._forward(window, None)
        return self._head(window, last, None, 0.0)

    def _forward(self, window: WindowTensors, seed: int | None) -> tuple[Call, Tensor]:
        """The residual stream at the end, and left before each trained layer; no seed, no dropout.

        Before the trained layers it is one tensor, changed in place.
        """
        if self._room is None or window.tokens > self._room.tokens:
            self._room = None  # before the larger ones are made
            self._room = self._allocate(max(window.tokens, self.window_tokens))
        call, first, tokens = self._call(window, seed), self.parts.first_trained, window.tokens
        stream = self._room.stream
        stream.at(0, tokens).copy_(self.parts.embedding(window.input_ids)[0])
        for number, layer in enumerate(self.parts.layers):
            place, following = max(0, number - first), max(0, number + 1 - first)
            x, y = stream.at(place, tokens), stream.at(following, tokens)
            if seed is not None and following > place:
                stream.leave(place, tokens)
            self._pass(layer, number, call).forward(x, y)
        return call, stream.at(self.layers, tokens)

    @property
    def _buffers(self) -> _Buffers:
        assert self._room is not None, "a forward pass makes them"
        return self._room

    def _window(self, window: WindowTensors, trained_tokens: int, seed: int) -> Tensor:
        call, last = self._forward(window, seed)
        parts, first, tokens = self.parts, self.parts.first_trained, window.tokens
        grad = self._buffers.grad[:tokens].zero_()
        losses, _ = self._head(window, last, grad, 1.0 / trained_tokens)
        for number in reversed(range(first, len(parts.layers))):
            x = self._buffers.stream.back(number - first, tokens)
            self._pass(parts.layers[number], number, call).backward(
                x, grad, kept=self._is_kept(number), more=number > first
            )
        return losses.sum()

    def _call(self, window: WindowTensors, seed: int | None) -> Call:
        parts = self.parts
        probe = torch.empty(1, dtype=torch.float32, device=self._device)
        cos, sin = parts.rotary(probe, window.position_ids)
        half = parts.heads.rotated // 2
        return Call(
            ops=self._ops,
            heads=parts.heads,
            bounds=sample_bounds(window),
            cos=cos[0, :, :half].contiguous(),
            sin=sin[0, :, :half].contiguous(),
            flat=self._values,
            scale=parts.scale,
            rate=0.0 if seed is None else parts.dropout,
            seed=mix(seed or 0),
            chunk=MLP_CHUNK,
        )

    def _head(
        self, window: WindowTensors, x: Tensor, grad: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Losses of the trained tokens, and hits without a `grad`; with one, x's goes into it."""
        norm, head, ops = self.parts.norm, self.parts.head, self._ops
        count, size = window.trained_tokens, self._buffers.logits.shape[0]
        losses = torch.empty(count, dtype=torch.float32, device=self._device)
        hits = torch.empty(count, dtype=torch.bool, device=self._device)
        for part in chunks(count, size):
            places, targets = window.predictors[part], window.targets[part]
            stream = x.index_select(0, places)
            hidden = torch.empty_like(stream)
            ops.norm(stream, norm.weight, norm.bias, norm.layer_norm, norm.eps, hidden)
            logits = self._buffers.logits[: len(stream)]
            torch.mm(hidden, head.t(), out=logits)
            if grad is None:
                hits[part] = logits.argmax(-1) == targets
            ops.cross_entropy(logits, targets, scale, losses[part])
            if grad is not None:
                torch.mm(logits, head, out=hidden)
                back = torch.zeros_like(stream)
                ops.norm_backward(stream, norm.weight, norm.layer_norm, norm.eps, hidden, back)
                grad.index_copy_(0, places, back)
        return losses, hits

    def _is_kept(self, number: int) -> bool:
        return number >= len(self.parts.layers) - self.kept_layers

    def _pass(self, layer: Layer, number: int, call: Call) -> LayerPass:
        """A layer with its own buffers where it is kept, else the shared ones."""
        place = number - (len(self.parts.layers) - self.kept_layers)
        whole, heads = self._buffers.saved[place if place >= 0 else -1], self.parts.heads
        tokens = len(call.cos)
        saved = Saved(
            qkv=rows(whole.qkv, tokens, heads.width),
            out=rows(whole.out, tokens, layer.out.width),
            lse=rows(whole.lse, heads.queries, tokens),
            middle=rows(whole.middle, tokens, self.parts.hidden),
            gate_up=rows(whole.gate_up, tokens, 2 * self.parts.inner),
        )
        return LayerPass(layer, number, call, saved, self._buffers.scratch)

    def _allocate(self, tokens: int) -> _Buffers:
        parts, chunk = self.parts, min(tokens, MLP_CHUNK)
        top = parts.layers

        def new(*shape: int, dtype: torch.dtype = self._dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=self._device)

        def widest(group: str) -> int:
            widths: list[int] = [getattr(layer, group).width for layer in top]
            return max(widths)

        def saved() -> Saved:
            return Saved(
                qkv=new(tokens * parts.heads.width),
                out=new(tokens * widest("out")),
                lse=new(tokens * parts.heads.queries, dtype=torch.float32),
                middle=new(tokens * parts.hidden),
                gate_up=new(tokens * 2 * parts.inner),
            )

        hidden = max(widest("qkv"), widest("out"), widest("gate_up"))
        names = ("qkv", "out", "gate_up", "down")
        scratch = Scratch(
            normed1=new(tokens * widest("qkv")),
            normed2=new(chunk * widest("gate_up")),
            act=new(chunk * widest("down")),
            grad=new(tokens * hidden),
            act_grad=new(chunk * widest("down")),
            qkv_grad=new(tokens * parts.heads.width),
            weights=tuple(new(getattr(top[0], n).rows * widest(n)) for n in names),  # type: ignore[arg-type]
        )
        return _Buffers(
            tokens=tokens,
            stream=self._new_stream(tokens),
            saved=tuple(saved() for _ in range(self.kept_layers + (self.kept_layers < len(top)))),
            scratch=scratch,
            grad=new(tokens, parts.hidden),
            logits=new(max(1, min(tokens, HEAD_VALUES // len(parts.head))), len(parts.head)),
        )

    def _new_stream(self, tokens: int) -> _Stream:
        shape, count = (tokens, self.parts.hidden), self.layers + 1
        kept = 2 if self._offload else count
        pinned = self._device.type == "cuda"
        return _Stream(
            tuple(torch.empty(shape, dtype=self._dtype, device=self._device) for _ in range(kept)),
            tuple(
                torch.empty(shape, dtype=self._dtype, pin_memory=pinned)
                for _ in range(count - 1 if self._offload else 0)
            ),
        )


def sample_bounds(window: WindowTensors) -> Bounds:
    """First token and end of each token's sample; nothing waits for the GPU."""
    places = torch.arange(window.tokens, device=window.cu_seqlens.device)
    sample = torch.searchsorted(window.cu_seqlens, places, right=True)
    return Bounds(
        starts=(places - window.position_ids[0]).to(torch.int32),
        ends=window.cu_seqlens.index_select(0, sample).to(torch.int32),
        cu_seqlens=window.cu_seqlens,
    )


def pick_ops(device: torch.device) -> Any:
    """GPU kernels on CUDA, PyTorch's own operations elsewhere."""
    if device.type != "cuda":
        return TorchOps()
    from tasks.training.fast.triton_ops import TritonOps

    return TritonOps()


def kept_bytes(parts: FastModel, tokens: int) -> int:
    """Bytes that one kept layer takes."""
    layer, size = parts.layers[-1], parts.head.element_size()
    values = parts.heads.width + layer.out.width + parts.hidden + 2 * parts.inner
    return tokens * (values * size + 4 * parts.heads.queries)


def fixed_bytes(parts: FastModel, tokens: int, offload: bool = False) -> int:
    """Bytes of all other buffers on the device."""
    layer, size, chunk = parts.layers[-1], parts.head.element_size(), min(tokens, MLP_CHUNK)
    stream = 3 if offload else len(parts.layers) - parts.first_trained + 2
    wide = max(layer.qkv.width, layer.out.width, layer.gate_up.width)
    a_token = stream * parts.hidden + layer.qkv.width + wide + parts.heads.width
    a_chunk = layer.gate_up.width + 2 * layer.down.width
    weights = sum(group.rows * group.width for group in layer.groups)
    logits = min(HEAD_VALUES, tokens * len(parts.head))
    values = tokens * a_token + chunk * a_chunk + weights + logits
    return values * size + kept_bytes(parts, tokens)
