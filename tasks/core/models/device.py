"""Device, compute type and GPU memory of this process."""

import gc
import os
from typing import Literal

import torch

from tasks.core.errors import PipelineError
from tasks.core.models.memory_probes import BFLOAT16_CAPABILITY, MINIMUM_CAPABILITY

Quantization = Literal["nf4", "none"]
Device = Literal["auto", "cpu", "cuda"]
DType = Literal["auto", "bfloat16", "float16", "float32"]
ComputeType = Literal["bfloat16", "float16", "float32"]

GIB = 2**30


def pick_device(setting: Device = "auto") -> torch.device:
    """The device that a setting selects on this machine.

    Raises:
        PipelineError: The setting is cuda and PyTorch sees no CUDA device.
    """
    available = torch.cuda.is_available()
    if setting == "cuda" and not available:
        raise PipelineError(
            "hardware.device is cuda and PyTorch sees no CUDA device",
            "Install PyTorch for CUDA and a driver, or set hardware.device to auto or cpu.",
        )
    return torch.device("cuda" if available and setting != "cpu" else "cpu")


def pick_dtype(setting: DType, device: torch.device, quantization: Quantization) -> ComputeType:
    """The compute type of a setting.

    auto is bfloat16; float16 on a GPU without bfloat16; float32 for an unquantized model on a CPU.

    Raises:
        PipelineError: A GPU that does not compute in it.
    """
    if device.type != "cuda":
        if setting != "auto":
            return setting
        return "float32" if quantization == "none" else "bfloat16"
    found = torch.cuda.get_device_capability(device)
    if setting == "auto":
        setting = "bfloat16" if found >= BFLOAT16_CAPABILITY else "float16"
    least = {"float32": (0, 0), "float16": MINIMUM_CAPABILITY, "bfloat16": BFLOAT16_CAPABILITY}
    needed = least[setting]
    if found < needed:
        remedy = "Use an RTX 20, T4 or newer, or set hardware.device to cpu."
        if found >= MINIMUM_CAPABILITY:
            remedy = "Set train.dtype and evaluate.dtype to auto or float16."
        raise PipelineError(
            f"{torch.cuda.get_device_name(device)} has compute capability {found[0]}.{found[1]}, "
            f"computing in {setting} needs {needed[0]}.{needed[1]}",
            remedy,
        )
    return setting


def beyond_float16(
    what: str,
    remedy: str = "Set train.dtype and evaluate.dtype to float32, which is slower and needs more "
    "memory, use a GPU with bfloat16 (RTX 30 or newer), or choose another base.",
) -> PipelineError:
    """The error for a model whose activations exceed float16, as those of some models that were
    trained in bfloat16 do; no loss scale changes that.

    Args:
        what: What was computed from them.
        remedy: What to do about it.
    """
    return PipelineError(
        f"{what} is not finite in float16: activations of this base exceed "
        f"{torch.finfo(torch.float16).max:,.0f}, its largest number",
        remedy,
    )


def limit_memory(device: torch.device, vram_gib: float | None, expandable: bool = True) -> None:
    """Cap PyTorch's allocator on the GPU, and let its segments grow to avoid fragmentation.

    Args:
        device: On a CPU nothing happens.
        vram_gib: GiB that PyTorch may reserve at most; None: all of the GPU's memory.
        expandable: Use expandable segments; takes effect only before the first allocation of the
            process.
    """
    if device.type != "cuda":
        return
    if expandable:
        for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):  # newer and older name
            os.environ.setdefault(name, "expandable_segments:True")
    total = torch.cuda.get_device_properties(device).total_memory
    share = 1.0 if vram_gib is None else min(1.0, vram_gib * GIB / total)
    torch.cuda.set_per_process_memory_fraction(share)


def memory_limit_gib(vram_gib: float | None) -> float:
    """Memory limit of this process in GiB: the cap, or the free memory if that is less."""
    free, _ = torch.cuda.mem_get_info()
    limit = (free + torch.cuda.memory_reserved()) / GIB
    return limit if vram_gib is None else min(vram_gib, limit)


def free_gpu() -> None:
    """Return unreferenced memory to the GPU; call it once nothing refers to the model."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def reset_peak() -> None:
    """Restart the measurement of peak memory."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_vram_gib() -> float:
    """Most GiB that PyTorch has reserved on the GPU since `reset_peak`; 0 without a GPU."""
    return torch.cuda.max_memory_reserved() / GIB if torch.cuda.is_available() else 0.0
