"""The number format in which a merged model answers: one for `finetune try` and for the server, as
16 and 32 bit choose different tokens where two are almost equally likely."""

from pathlib import Path
from typing import Literal


def compute_type(weights: Path, device: str) -> Literal["auto", "bfloat16", "float32"]:
    """16 bit on a GPU; 32 bit on a CPU, faster there, if it fits in half of the free RAM.

    Args:
        weights: Folder with safetensors files.
        device: Type of the device, as of PyTorch.
    """
    import psutil  # type: ignore[import-untyped]  # ships no types

    if device != "cpu":
        return "auto"
    needed = 2 * sum(file.stat().st_size for file in weights.glob("*.safetensors"))
    return "float32" if needed < psutil.virtual_memory().available / 2 else "bfloat16"
