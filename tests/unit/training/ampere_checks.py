"""Compiles the fast path's kernels for sm_86: `python -m tests.unit.training.ampere_checks`.

No GPU is needed: a step of one layer of real size is prepared on the CPU, and every launch is
compiled for that card (sm_86) instead of run. Prints, as JSON, the bytes of shared memory that a
block takes, by shape and kernel, and whether the product in 8 bit uses the integer matrix units; a
kernel that cannot be compiled for the card raises.
"""

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from benchmarks.training.shape import make_model, window_of
from tasks.core.models.packed_forward import window_tensors
from tasks.training.fast.model.groups import parameter_order
from tasks.training.fast.ops.triton_ops import TritonOps
from tasks.training.fast.step import FastStepper
from tasks.training.lora import add_lora
from tasks.training.steppers.flat_parameters import FlatParameters

SHAPES: dict[str, tuple[str, dict[str, int]]] = {
    "stable-code-3b": ("stablelm", {}),
    "Code Llama 7B": (
        "llama",
        {
            "hidden_size": 4096,
            "intermediate_size": 11_008,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
        },
    ),
    "SmolLM2-135M": (
        "llama",
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
        },
    ),
    "Qwen3 1.7B": (
        "qwen3",
        {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
    ),
    "Gemma 2 2B": (
        "gemma2",
        {"hidden_size": 2304, "intermediate_size": 9216}
        | {"num_attention_heads": 8, "num_key_value_heads": 4},
    ),
    "Pythia 2.8B": ("gpt_neox", {}),
}


class Card:
    """A driver with an RTX 3080, for the compiler."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 86, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0


def compile_all(rank: int = 8) -> tuple[dict[str, dict[str, int]], bool]:
    """Bytes of shared memory by shape and kernel, the most of all its variants; integer units."""
    driver.set_active(Card())
    found: dict[str, int] = {}
    integer: list[bool] = []
    run = JITFunction.run

    def compiled(self: Any, *args: Any, grid: Any, warmup: bool, **settings: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **settings)
        name = self.fn.__name__
        found[name] = max(found.get(name, 0), kernel.metadata.shared)
        if name == "product8":
            integer.append("IMMA" in kernel.asm["sass"])
        return kernel

    JITFunction.run = compiled  # type: ignore[method-assign]
    result = {}
    for title, (kind, changes) in SHAPES.items():
        small = {"num_hidden_layers": 1, "vocab_size": 8192}
        model = add_lora(
            make_model(kind, device="cpu", changes=changes | small),
            rank=rank,
            alpha=32,
            dropout=0.05,
        )
        flat = FlatParameters(model, parameter_order)
        window = window_of([40, 24], 0)
        window = type(window)(
            window.input_ids % 8192,
            window.labels.clip(max=8191),
            window.position_ids,
            window.cu_seqlens,
            window.row_ids,
        )
        tensors = window_tensors(window, torch.device("cpu"))
        for kept, backward in ((0, "bf16"), (1, "int8")):
            stepper = FastStepper(
                model, flat, max_tokens=64, kept_layers=kept, backward=backward, ops=TritonOps()
            )
            stepper.run([tensors], tensors.trained_tokens, 1)
        stepper.measure(tensors)
        result[title] = dict(found)
        found.clear()
    return result, all(integer)


if __name__ == "__main__":
    shared, integer = compile_all()
    line = {"triton": triton.__version__, "shared": shared, "integer units": integer}
    sys.stdout.write(json.dumps(line) + "\n")
