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

from tasks.core.modeling import WindowTensors
from tasks.training.fast_layer import Call, LayerPass, Saved, Scratch, chunks, rows
from tasks.training.fast_model import FastModel, Layer, take_apart
from tasks.training.fast_ops import Bounds, TorchOps, mix
from tasks.training.flat import FlatParameters
from tasks.training.plain import window_seed

MLP_CHUNK = 8192  # tokens of an MLP at one time; a longer window takes turns
HEAD_VALUES = 2**26  # logits that exist at one time


@dataclass(frozen=True)
class _Buffers:
    """Everything the steps write to, for windows of at most `tokens`."""

    tokens: int
    stream: tuple[Tensor, ...]
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
        kept_layers: Layers that keep activations, counted from the last; None: as many as fit.
        budget: Bytes that buffers and kept activations may take; None: no limit.
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
        budget: int | None = None,
        ops: Any = None,
    ) -> None:
        self.parts = take_apart(model, flat.places)
        self._flat = flat
        self._device = flat.values.device
        self._dtype = self.parts.head.dtype
        self._ops = ops if ops is not None else pick_ops(self._device)
        self.attention = type(self._ops).__name__
        layers = len(self.parts.layers) - self.parts.first_trained
        if kept_layers is None:
            free = None if budget is None else budget - fixed_bytes(self.parts, max_tokens)
            size = kept_bytes(self.parts, max_tokens)
            kept_layers = layers if free is None else max(0, free) // size
        self.kept_layers = min(kept_layers, layers)
        self._values = torch.empty_like(flat.values, dtype=self._dtype)
        self._buffers = self._allocate(max_tokens)

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
        _, stream = self._forward(window, None)
        return self._head(window, stream[-1], None, 0.0)

    def _forward(self, window: WindowTensors, seed: int | None) -> tuple[Call, list[Tensor]]:
        """The residual stream before trained layers and at the end; no seed, no dropout."""
        if window.tokens > self._buffers.tokens:
            del self._buffers  # before the larger ones are made
            self._buffers = self._allocate(window.tokens)
        call, first = self._call(window, seed), self.parts.first_trained
        stream = [x[: window.tokens] for x in self._buffers.stream]
        stream[0].copy_(self.parts.embedding(window.input_ids)[0])
        for number, layer in enumerate(self.parts.layers):
            x = stream[max(0, number - first)]
            y = stream[max(0, number + 1 - first)]
            self._pass(layer, number, call).forward(x, y)
        return call, stream

    def _window(self, window: WindowTensors, trained_tokens: int, seed: int) -> Tensor:
        call, stream = self._forward(window, seed)
        parts, first = self.parts, self.parts.first_trained
        grad = self._buffers.grad[: window.tokens].zero_()
        losses, _ = self._head(window, stream[-1], grad, 1.0 / trained_tokens)
        for number in reversed(range(first, len(parts.layers))):
            self._pass(parts.layers[number], number, call).backward(
                stream[number - first], grad, kept=self._is_kept(number), more=number > first
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
            stream=tuple(
                new(tokens, parts.hidden) for _ in range(len(top) - parts.first_trained + 1)
            ),
            saved=tuple(saved() for _ in range(self.kept_layers + (self.kept_layers < len(top)))),
            scratch=scratch,
            grad=new(tokens, parts.hidden),
            logits=new(max(1, min(tokens, HEAD_VALUES // len(parts.head))), len(parts.head)),
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
    from tasks.training.fast_triton import TritonOps

    return TritonOps()


def kept_bytes(parts: FastModel, tokens: int) -> int:
    """Bytes that one kept layer takes."""
    layer, size = parts.layers[-1], parts.head.element_size()
    values = parts.heads.width + layer.out.width + parts.hidden + 2 * parts.inner
    return tokens * (values * size + 4 * parts.heads.queries)


def fixed_bytes(parts: FastModel, tokens: int) -> int:
    """Bytes of all other buffers."""
    layer, size, chunk = parts.layers[-1], parts.head.element_size(), min(tokens, MLP_CHUNK)
    stream = len(parts.layers) - parts.first_trained + 2
    wide = max(layer.qkv.width, layer.out.width, layer.gate_up.width)
    a_token = stream * parts.hidden + layer.qkv.width + wide + parts.heads.width
    a_chunk = layer.gate_up.width + 2 * layer.down.width
    weights = sum(group.rows * group.width for group in layer.groups)
    logits = min(HEAD_VALUES, tokens * len(parts.head))
    values = tokens * a_token + chunk * a_chunk + weights + logits
    return values * size + kept_bytes(parts, tokens)
