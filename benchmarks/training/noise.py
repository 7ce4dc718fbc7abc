"""How far a step's gradient is from 32 bit at the shape of stable-code-3b, for both steppers.

    python -m benchmarks.training.noise [--tokens 4096] [--model stablelm]

One packed window through the same 4-bit base with the same LoRA matrices, without dropout: by
transformers and peft in 32 bit (the truth), by transformers and peft in bfloat16, and by the fast
path with all and with no activations kept. An error is the norm of the difference over the norm of
the truth, of all LoRA gradients together. Needs a CUDA GPU; `--smoke` runs a tiny model on a CPU.
"""

import argparse
import sys
from typing import Any

import torch
from torch import Tensor

from benchmarks.training import shape
from tasks.core.models.device import free_gpu
from tasks.core.models.packed_forward import WindowTensors, window_tensors
from tasks.training.fast.model.groups import parameter_order
from tasks.training.fast.step import FastStepper
from tasks.training.lora import add_lora
from tasks.training.steppers.autograd_stepper import AutogradStepper
from tasks.training.steppers.flat_parameters import FlatParameters

LORA_NOISE = 0.01  # B starts at zero, which would leave A without a gradient


def widen(model: Any) -> None:
    """Compute in 32 bit with the weights as they are; 4-bit ones are expanded as before."""
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float32
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.float()
    model.set_attn_implementation("sdpa")


def prepared(kind: str, device: str, changes: dict[str, Any], wide: bool) -> Any:
    """The base with LoRA, the same every time, and its flat parameters."""
    model = shape.make_model(kind, device=device, changes=changes)
    if wide:
        widen(model)
    model = add_lora(model, rank=8, alpha=32, dropout=0.0)
    flat = FlatParameters(model, parameter_order)
    with torch.no_grad():
        noise = torch.randn(flat.values.shape, generator=torch.manual_seed(3))
        flat.values.add_(LORA_NOISE * noise.to(flat.values.device))
    return model, flat


def gradient(stepper: Any, flat: FlatParameters, window: WindowTensors) -> tuple[float, Tensor]:
    """Mean loss, and all LoRA gradients on the CPU."""
    flat.clear()
    loss = float(stepper.run([window], window.trained_tokens, 1)) / window.trained_tokens
    return loss, flat.gradient.detach().float().cpu().clone()


def measure(kind: str, tokens: int, smoke: bool) -> list[tuple[str, float, Tensor]]:
    """Name, loss and gradient of each way; the truth first."""
    device, changes = ("cpu", shape.SMALL) if smoke else ("cuda", {})
    window = window_tensors(next(shape.packed_windows(tokens)), torch.device(device))
    found = []
    model, flat = prepared(kind, device, changes, True)
    found.append(("plain, 32 bit", *gradient(AutogradStepper(model, 0), flat, window)))
    del model, flat
    free_gpu()
    model, flat = prepared(kind, device, changes, False)
    found.append(("plain, bfloat16", *gradient(AutogradStepper(model, 0), flat, window)))
    for kept, backward in ((0, "bf16"), (8, "bf16"), (99, "bf16"), (0, "int8"), (99, "int8")):
        stepper = FastStepper(
            model, flat, max_tokens=window.tokens, kept_layers=kept, backward=backward
        )
        name = f"fast, backward {backward}, {stepper.kept_layers} layers kept"
        found.append((name, *gradient(stepper, flat, window)))
        del stepper
        free_gpu()
    return found


def main() -> None:
    """Run and print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tokens", type=int, default=4096)
    options.add_argument("--model", default="stablelm", choices=("stablelm", "llama"))
    options.add_argument("--smoke", action="store_true")
    given = options.parse_args()
    found = measure(given.model, given.tokens, given.smoke)
    _, true_loss, truth = found[0]
    device = "CPU (smoke)" if given.smoke else torch.cuda.get_device_name()
    lines = [
        f"{given.model}, {device}, torch {torch.__version__}, {given.tokens:,} tokens\n",
        "| way | loss | off by | gradient off by |",
        "|---|---|---|---|",
    ]
    for name, loss, grad in found:
        error = float(torch.linalg.vector_norm(grad - truth) / torch.linalg.vector_norm(truth))
        lines.append(f"| {name} | {loss:.5f} | {loss - true_loss:+.1e} | {100 * error:.2f} % |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
