"""The fused stepper (fast path): forward and backward of one optimizer step without autograd.

In: a model that `model.extract_model` supports. Out: gradients in the flat gradient tensor, equal
to those of the autograd stepper up to rounding (tests/unit/training/test_fast.py: 1e-5 in 32 bit).

Why it is fast: linear layers that share an input run as one matrix product that includes LoRA; no
gradient of the frozen base is computed; attention gets the samples' bounds instead of a mask; and
all memory is allocated before the first step, so the host only queues kernels. Measured in
benchmarks/README.md, section "Training step".

One window runs as: embedding, layers before the first one with LoRA (forward only), trained layers,
norm and head in chunks of tokens, trained layers in reverse.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.core.models.packed_forward import WindowTensors
from tasks.training.fast.graphs import WindowGraphs, bucket, padded
from tasks.training.fast.layer import Call, LayerPass, Saved, Scratch, chunks, rows
from tasks.training.fast.model import FastModel, LayerWeights, extract_model
from tasks.training.fast.torch_ops import Bounds, TorchOps, mix, signed
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.stepper import window_seed

# `tasks/core/models/memory_estimate.py` repeats both for the plan, which must not import torch
MLP_CHUNK = 8192  # tokens per chunk of the MLP; bounds the buffers of longer windows
HEAD_VALUES = 2**26  # logits in memory at a time: 128 MiB in bfloat16


@dataclass(frozen=True)
class _Stream:
    """The residual stream before every trained layer and after the last one.

    Attributes:
        device: One buffer per index; with `host` only two, used alternately.
        host: One pinned buffer per index except the last, or empty without offloading.
    """

    device: tuple[Tensor, ...]
    host: tuple[Tensor, ...]

    def at(self, index: int, tokens: int) -> Tensor:
        """The stream's buffer at `index` on the device, [tokens, hidden]."""
        return self.device[index % len(self.device)][:tokens]

    def save(self, index: int, tokens: int) -> None:
        """Keep the stream at `index` for the backward pass.

        Copies are asynchronous but in order with the kernels: all use the same CUDA stream, so a
        buffer is overwritten only after it was copied.
        """
        if self.host:
            self.host[index][:tokens].copy_(self.at(index, tokens), non_blocking=True)

    def load(self, index: int, tokens: int) -> Tensor:
        """The stream at `index` in the backward pass, on the device."""
        x = self.at(index, tokens)
        return x.copy_(self.host[index][:tokens], non_blocking=True) if self.host else x


@dataclass(frozen=True)
class _Buffers:
    """All buffers of a step, for windows of at most `tokens`."""

    tokens: int
    stream: _Stream
    saved: tuple[Saved, ...]
    sides: tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...]
    scratch: Scratch
    grad: Tensor
    logits: Tensor


class _Inputs:
    """What differs between windows, at addresses that stay: recorded passes read it.

    Args:
        parts: The model.
        tokens: Of the longest window.
        device: Of the buffers.
    """

    def __init__(self, parts: FastModel, tokens: int, device: torch.device) -> None:
        def new(values: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(values, dtype=dtype, device=device)

        self._parts, half = parts, parts.heads.rotated // 2
        self._cos, self._sin = (new(tokens * half, torch.float32) for _ in range(2))
        self._starts, self._ends = (new(tokens, torch.int32) for _ in range(2))
        count = 4 * len(parts.layers) * len(chunks(tokens, MLP_CHUNK))
        self._seeds = new(count, torch.int32)

    def fill(self, window: WindowTensors, seed: int | None, ops: Any, flat: Tensor) -> Call:
        """Write a window's inputs; without a seed there is no dropout."""
        parts, tokens, half = self._parts, window.tokens, self._parts.heads.rotated // 2
        # the rotary module returns the type of its first argument: float32 tables are more accurate
        like = torch.empty(1, dtype=torch.float32, device=flat.device)
        tables = parts.rotary(like, window.position_ids)
        cos, sin = rows(self._cos, tokens, half), rows(self._sin, tokens, half)
        for to, table in zip((cos, sin), tables, strict=True):
            # transformers repeats the angles for both halves of the rotated features
            to.copy_(table[0, :, :half])
        bounds = sample_bounds(window)
        mixed = mix(seed or 0)
        if seed is not None and parts.dropout:
            self._fill_seeds(tokens, mixed)
        return Call(
            ops=ops,
            heads=parts.heads,
            bounds=Bounds(
                self._starts[:tokens].copy_(bounds.starts),
                self._ends[:tokens].copy_(bounds.ends),
                window.cu_seqlens,
            ),
            cos=cos,
            sin=sin,
            flat=flat,
            scale=parts.scale,
            rate=0.0 if seed is None else parts.dropout,
            seed=mixed,
            seeds=self._seeds,
            chunk=MLP_CHUNK,
        )

    def _fill_seeds(self, tokens: int, mixed: int) -> None:
        """Seeds of all dropout masks, in the order of `Call.seed_place`."""
        groups = range(4 * len(self._parts.layers))
        parts = chunks(tokens, MLP_CHUNK)
        seeds = torch.tensor(
            [signed(mix(mixed, group, part.start)) for group in groups for part in parts],
            dtype=torch.int32,
        )
        if self._seeds.is_cuda:
            seeds = seeds.pin_memory()
        self._seeds[: len(seeds)].copy_(seeds, non_blocking=True)


class FastStepper:
    """Runs windows by hand-written forward and backward passes; see `steppers.stepper.Stepper`.

    Args:
        model: A PEFT model; its parameters are in `flat`.
        flat: The trained parameters, in the order of `model.parameter_order`.
        max_tokens: Tokens of the longest window.
        kept_layers: Layers that keep their activations, counted from the last; None: all.
        offload: The residual stream waits for the backward pass in the CPU's memory.
        ops: The operations; None: GPU kernels on CUDA, PyTorch elsewhere.

    Raises:
        Unsupported: The model is not supported; the message gives the reason.
    """

    name = "fast"  # stored in training.json and in memory probes
    lockstep = False

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
        self.parts = extract_model(model, flat.offsets)
        self._flat = flat
        self._device = flat.values.device
        self._dtype = self.parts.head.dtype
        self._ops = ops if ops is not None else pick_ops(self._device)
        self.attention = type(self._ops).__name__
        self._offload = offload
        # copies to the host and back are not recorded
        self._graphed = self._device.type == "cuda" and not offload
        # layers before the first one with LoRA have no backward pass and keep nothing
        self.layers = len(self.parts.layers) - self.parts.first_trained
        self._values = torch.empty_like(flat.values, dtype=self._dtype)
        self.resize(self.layers if kept_layers is None else kept_layers, max_tokens)

    def resize(self, kept_layers: int, window_tokens: int) -> None:
        """Set both sizes; frees the buffers, which the next window allocates."""
        self.kept_layers = min(kept_layers, self.layers)
        self.window_tokens = window_tokens
        self._release()

    def _release(self) -> None:
        """Free the buffers, and the graphs that refer to them."""
        self._graphs: WindowGraphs | None = None
        self._allocated: _Buffers | None = None
        self._inputs: _Inputs | None = None

    def layer_bytes(self) -> int:
        """Bytes of one more kept layer."""
        return kept_bytes(self.parts, self.window_tokens)

    @torch.no_grad()
    def run(self, windows: Sequence[WindowTensors], trained_tokens: int, seed: int) -> Tensor:
        """Add the gradients of the mean loss; returns the summed loss.

        Dropout masks differ from the autograd stepper's, at the same rate.
        """
        # products run in the base's precision; the float32 values stay the optimizer's
        self._values.copy_(self._flat.values)
        total = torch.zeros((), dtype=torch.float32, device=self._device)
        for index, window in enumerate(windows):
            if window.trained_tokens:
                total += self._window(window, trained_tokens, window_seed(seed, index))
        return total

    @torch.no_grad()
    def measure(self, window: WindowTensors) -> tuple[Tensor, Tensor]:
        """Loss and hit of each trained token, without dropout: float32[m], bool[m]."""
        self._values.copy_(self._flat.values)
        call = self._begin(window, None)
        self._forward(call, saves=False)
        return self._head(window, self._last(call), None, 0.0)

    def _begin(self, window: WindowTensors, seed: int | None) -> Call:
        """Write a window's inputs and its embedded tokens into the buffers."""
        if self._allocated is None or window.tokens > self._allocated.tokens:
            self._release()  # frees the smaller buffers first
            self._allocated = self._allocate(max(window.tokens, self.window_tokens))
        if self._inputs is None:
            self._inputs = _Inputs(self.parts, self._allocated.tokens, self._device)
        call = self._inputs.fill(window, seed, self._ops, self._values)
        embedded = self.parts.embedding(window.input_ids)[0]
        self._allocated.stream.at(0, window.tokens).copy_(embedded)
        return call

    def _last(self, call: Call) -> Tensor:
        """The residual stream after the last layer."""
        return self._buffers.stream.at(self.layers, len(call.cos))

    def _forward(self, call: Call, *, saves: bool) -> None:
        """Run all layers; with `saves`, save the stream before each trained one.

        Layers before the first trained one all use the stream's buffer 0, in place.
        """
        first, tokens, stream = self.parts.first_trained, len(call.cos), self._buffers.stream
        for number, layer in enumerate(self.parts.layers):
            index, following = max(0, number - first), max(0, number + 1 - first)
            x, y = stream.at(index, tokens), stream.at(following, tokens)
            if saves and following > index:
                stream.save(index, tokens)
            self._pass(layer, number, call).forward(x, y)

    @property
    def _buffers(self) -> _Buffers:
        assert self._allocated is not None, "a forward pass allocates them"
        return self._allocated

    def _window(self, window: WindowTensors, trained_tokens: int, seed: int) -> Tensor:
        """Forward and backward of one window; returns its summed loss."""
        if self._graphed and window.tokens <= self.window_tokens:
            window = padded(window, min(bucket(window.tokens), self.window_tokens))
        call = self._begin(window, seed)
        grad = self._buffers.grad[: window.tokens].zero_()
        self._run("forward", call, lambda: self._forward(call, saves=True))
        losses, _ = self._head(window, self._last(call), grad, 1.0 / trained_tokens)
        self._run("backward", call, lambda: self._backward(call, grad))
        return losses.sum()

    def _run(self, name: str, call: Call, body: Callable[[], None]) -> None:
        """Run one pass over a window, as a graph on a GPU."""
        if not self._graphed:
            body()
            return
        if self._graphs is None:
            self._graphs = WindowGraphs()
        self._graphs.run((name, len(call.cos)), body)

    def _backward(self, call: Call, grad: Tensor) -> None:
        """Run the trained layers in reverse, from the gradient of the last one's output."""
        parts, first = self.parts, self.parts.first_trained
        for number in reversed(range(first, len(parts.layers))):
            x = self._buffers.stream.load(number - first, len(call.cos))
            self._pass(parts.layers[number], number, call).backward(
                x, grad, kept=self._is_kept(number), more=number > first
            )

    def _head(
        self, window: WindowTensors, x: Tensor, grad: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Loss of each trained token; and hits without `grad`, or the gradient of `x` in `grad`.

        Runs only tokens that predict a trained one, in chunks: all logits of a window of 16,384
        tokens at 50,304 vocabulary entries would take 1.5 GiB.
        """
        norm, head, ops = self.parts.norm, self.parts.head, self._ops
        count, size = window.trained_tokens, self._buffers.logits.shape[0]
        losses = torch.empty(count, dtype=torch.float32, device=self._device)
        hits = torch.empty(count, dtype=torch.bool, device=self._device)
        for part in chunks(count, size):
            predictors, targets = window.predictors[part], window.targets[part]
            stream = x.index_select(0, predictors)
            hidden = torch.empty_like(stream)
            ops.norm(stream, norm, hidden)
            logits = self._buffers.logits[: len(stream)]
            torch.mm(hidden, head.t(), out=logits)
            if grad is None:
                hits[part] = logits.argmax(-1) == targets
            ops.cross_entropy(logits, targets, scale, losses[part])  # logits become gradients
            if grad is not None:
                torch.mm(logits, head, out=hidden)
                back = torch.zeros_like(stream)
                ops.norm_backward(stream, norm, hidden, back)
                grad.index_copy_(0, predictors, back)  # each token predicts at most one
        return losses, hits

    def _is_kept(self, number: int) -> bool:
        return number >= len(self.parts.layers) - self.kept_layers

    def _pass(self, layer: LayerWeights, number: int, call: Call) -> LayerPass:
        """A layer with its own activations if it is kept, else with the shared ones."""
        index = number - (len(self.parts.layers) - self.kept_layers)
        whole, heads = self._buffers.saved[index if index >= 0 else -1], self.parts.heads
        tokens = len(call.cos)
        saved = Saved(
            qkv=rows(whole.qkv, tokens, heads.width),
            out=rows(whole.out, tokens, layer.out.width),
            lse=rows(whole.lse, heads.queries, tokens),
            middle=rows(whole.middle, tokens, self.parts.hidden),
            gate_up=rows(whole.gate_up, tokens, 2 * self.parts.inner),
        )
        sides = self._buffers.sides[max(0, number - self.parts.first_trained)]
        widths = [group.loras * group.rank for group in layer.groups]
        cut = tuple(rows(*pair) for pair in zip(sides, (tokens,) * 4, widths, strict=True))
        return LayerPass(layer, number, call, saved, self._buffers.scratch, cut)  # type: ignore[arg-type]

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

        hidden = max(widest("qkv"), widest("out"), widest("gate_up"))  # `down` has `act_grad`
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
            sides=tuple(
                tuple(new(tokens * group.loras * group.rank) for group in layer.groups)  # type: ignore[misc]
                for layer in top[parts.first_trained :]
            ),
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
    """Start and end of each token's sample, computed on the device without waiting for it."""
    tokens = torch.arange(window.tokens, device=window.cu_seqlens.device)
    sample = torch.searchsorted(window.cu_seqlens, tokens, right=True)
    return Bounds(
        starts=(tokens - window.position_ids[0]).to(torch.int32),
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
    """Bytes of one kept layer's `Saved`."""
    layer, size = parts.layers[-1], parts.head.element_size()
    values = parts.heads.width + layer.out.width + parts.hidden + 2 * parts.inner
    return tokens * (values * size + 4 * parts.heads.queries)


def fixed_bytes(parts: FastModel, tokens: int, offload: bool = False) -> int:
    """Bytes of all buffers on the device with no layer kept."""
    layer, size, chunk = parts.layers[-1], parts.head.element_size(), min(tokens, MLP_CHUNK)
    stream = 3 if offload else len(parts.layers) - parts.first_trained + 2
    wide = max(layer.qkv.width, layer.out.width, layer.gate_up.width)
    a_token = stream * parts.hidden + layer.qkv.width + wide + parts.heads.width
    a_chunk = layer.gate_up.width + 2 * layer.down.width
    weights = sum(group.rows * group.width for group in layer.groups)
    logits = min(HEAD_VALUES, tokens * len(parts.head))
    sides = sum(g.loras * g.rank for one in parts.layers for g in one.groups)
    values = tokens * (a_token + sides) + chunk * a_chunk + weights + logits
    return values * size + kept_bytes(parts, tokens)
