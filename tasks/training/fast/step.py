"""The fused stepper (fast path): forward and backward of one optimizer step without autograd.

In: a model that `model.extract` supports. Out: gradients in the flat gradient tensor, equal
to those of the autograd stepper up to rounding (tests/unit/training/test_fast.py: 1e-5 in 32 bit).

Why it is fast: linear layers that share an input run as one matrix product that includes LoRA; no
gradient of the frozen base is computed; attention gets the samples' bounds instead of a mask; and
all memory is allocated before the first step, so the host only queues kernels. Measured in
benchmarks/README.md, section "Training step".

One window runs as: embedding, layers before the first one with LoRA (forward only), trained layers,
norm and head in chunks of tokens, trained layers in reverse.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.core.models.packed_forward import WindowTensors
from tasks.training.fast.buffers import Buffers, allocate, kept_bytes
from tasks.training.fast.graphs import WindowGraphs, bucket, padded
from tasks.training.fast.head import head_losses
from tasks.training.fast.inputs import Inputs
from tasks.training.fast.layer.layer_pass import LayerPass
from tasks.training.fast.layer.products import Products
from tasks.training.fast.layer.state import Call, Saved, rows
from tasks.training.fast.model.extract import extract_model
from tasks.training.fast.model.weights import LayerWeights
from tasks.training.fast.ops.torch_ops import TorchOps
from tasks.training.fast.ops.torch_weights import model_scales
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.stepper import window_seed


class FastStepper:
    """Runs windows by hand-written forward and backward passes; see `steppers.stepper.Stepper`.

    Args:
        model: A PEFT model; its parameters are in `flat`.
        flat: The trained parameters, in the order of `model.groups.parameter_order`.
        max_tokens: Tokens of the longest window.
        kept_layers: Layers that keep their activations, counted from the last; None: all.
        offload: The residual stream waits for the backward pass in the CPU's memory.
        backward: int8 rounds the backward pass's products with frozen weights; bf16 does not. With
            int8, the forward pass sums the residual stream in 32 bit, which makes the gradient
            more exact by more than the rounding costs.
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
        backward: str = "bf16",
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
        self._scales = model_scales(self.parts) if backward == "int8" else ()
        self.wide = bool(self._scales) and self._dtype.itemsize < 4
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
        self._allocated: Buffers | None = None
        self._inputs: Inputs | None = None

    def layer_bytes(self) -> int:
        """Bytes of one more kept layer."""
        return kept_bytes(self.parts, self.window_tokens)

    @torch.no_grad()
    def run(self, windows: Sequence[WindowTensors], divisor: float, seed: int) -> Tensor:
        """Add the gradients of the loss over `divisor`; returns the summed loss.

        Dropout masks differ from the autograd stepper's, at the same rate.
        """
        # products run in the base's precision; the float32 values stay the optimizer's
        self._values.copy_(self._flat.values)
        total = torch.zeros((), dtype=torch.float32, device=self._device)
        for index, window in enumerate(windows):
            if window.trained_tokens:
                total += self._window(window, divisor, window_seed(seed, index))
        return total

    @torch.no_grad()
    def measure(self, window: WindowTensors) -> tuple[Tensor, Tensor]:
        """Loss and hit of each trained token, without dropout: float32[m], bool[m]."""
        self._values.copy_(self._flat.values)
        call = self._begin(window, None)
        self._forward(call, saves=False)
        return self._head(window, call, None, 0.0)

    def _begin(self, window: WindowTensors, seed: int | None) -> Call:
        """Write a window's inputs and its embedded tokens into the buffers."""
        if self._allocated is None or window.tokens > self._allocated.tokens:
            self._release()  # frees the smaller buffers first
            self._allocated = allocate(
                self.parts,
                max(window.tokens, self.window_tokens),
                self.kept_layers,
                self._device,
                offload=self._offload,
                wide=self.wide,
            )
        if self._inputs is None:
            self._inputs = Inputs(self.parts, self._allocated.tokens, self._device)
        call = self._inputs.fill(window, seed, self._ops, self._values)
        embedded = self.parts.embedding(window.input_ids)[0]
        if self.parts.embedding_scale != 1.0:
            embedded = embedded * self.parts.embedding_scale
        if self.parts.positions is not None:
            embedded = embedded + self.parts.positions(window.position_ids)[0]
        self._allocated.stream.at(0, window.tokens).copy_(embedded)
        if self.wide:
            wide = self._allocated.scratch.wide
            rows(wide, window.tokens, self.parts.hidden).copy_(embedded)
        return call

    def _head(
        self, window: WindowTensors, call: Call, grad: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Losses from the residual stream after the last layer; see `head_losses`."""
        x, logits = self._buffers.stream.at(self.layers, call.tokens), self._buffers.logits
        return head_losses(self._ops, self.parts.last, logits, window, x, grad, scale)

    def _forward(self, call: Call, *, saves: bool) -> None:
        """Run all layers; with `saves`, save the stream before each trained one.

        Layers before the first trained one all use the stream's buffer 0, in place.
        """
        first, tokens, stream = self.parts.first_trained, call.tokens, self._buffers.stream
        for number, layer in enumerate(self.parts.layers):
            index, following = max(0, number - first), max(0, number + 1 - first)
            x, y = stream.at(index, tokens), stream.at(following, tokens)
            if saves and following > index:
                stream.save(index, tokens)
            self._pass(layer, number, call).forward(x, y)
            if saves and following > index and self.parts.branches:
                self._buffers.branches.save(index, tokens)

    @property
    def _buffers(self) -> Buffers:
        assert self._allocated is not None, "a forward pass allocates them"
        return self._allocated

    def _window(self, window: WindowTensors, divisor: float, seed: int) -> Tensor:
        """Forward and backward of one window; returns its summed loss."""
        if self._graphed and window.tokens <= self.window_tokens:
            window = padded(window, min(bucket(window.tokens), self.window_tokens))
        call = self._begin(window, seed)
        grad = self._buffers.grad[: window.tokens].zero_()
        self._run("forward", call, lambda: self._forward(call, saves=True))
        losses, _ = self._head(window, call, grad, 1.0 / divisor)
        self._run("backward", call, lambda: self._backward(call, grad))
        return losses.sum() if window.weights is None else losses @ window.weights

    def _run(self, name: str, call: Call, body: Callable[[], None]) -> None:
        """Run one pass over a window, as a graph on a GPU."""
        if not self._graphed:
            body()
            return
        if self._graphs is None:
            self._graphs = WindowGraphs()
        self._graphs.run((name, call.tokens), body)

    def _backward(self, call: Call, grad: Tensor) -> None:
        """Run the trained layers in reverse, from the gradient of the last one's output."""
        parts, first = self.parts, self.parts.first_trained
        for number in reversed(range(first, len(parts.layers))):
            x = self._buffers.stream.load(number - first, call.tokens)
            if parts.branches:
                self._buffers.branches.load(number - first, call.tokens)
            self._pass(parts.layers[number], number, call).backward(
                x, grad, kept=self._is_kept(number), more=number > first
            )

    def _is_kept(self, number: int) -> bool:
        return number >= len(self.parts.layers) - self.kept_layers

    def _pass(self, layer: LayerWeights, number: int, call: Call) -> LayerPass:
        """A layer with its own activations if it is kept, else with the shared ones."""
        index = number - (len(self.parts.layers) - self.kept_layers)
        whole, heads = self._buffers.saved[index if index >= 0 else -1], self.parts.heads
        tokens, trained = call.tokens, max(0, number - self.parts.first_trained)
        saved = Saved(
            qkv=rows(whole.qkv, tokens, heads.width),
            out=rows(whole.out, tokens, layer.out.width),
            lse=rows(whole.lse, heads.queries, tokens),
            middle=rows(whole.middle, tokens, self.parts.hidden),
            gate_up=None if whole.gate_up is None else whole.gate_up[:tokens],
            unnormed=None if whole.unnormed is None else rows(whole.unnormed, tokens, heads.width),
            branch1=None if whole.branch1 is None else whole.branch1[:tokens],
            branch2=self._buffers.branches.at(trained, tokens) if self.parts.branches else None,
        )
        sides = self._buffers.sides[trained]
        widths = [group.loras * group.rank for group in layer.groups]
        cut = tuple(rows(*pair) for pair in zip(sides, (tokens,) * 4, widths, strict=True))
        scales = self._scales[number] if self._scales else None
        products = Products(layer, number, call, self._buffers.scratch, cut, scales)  # type: ignore[arg-type]
        return LayerPass(products, saved)


def pick_ops(device: torch.device) -> Any:
    """GPU kernels on CUDA, PyTorch's own operations elsewhere."""
    if device.type != "cuda":
        return TorchOps()
    from tasks.training.fast.ops.triton_ops import TritonOps

    return TritonOps()
