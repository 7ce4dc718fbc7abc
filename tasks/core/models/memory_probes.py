"""Memory probes: measured memory and speed of a training step, stored for plans and later runs.

In: everything that determines memory and speed (GPU, driver, PyTorch, the base model's config,
settings of the adapter). Out: a probe measured by the training stage, or None. Stored as a small
JSON file beside the artifacts, which `finetune plan` reads without PyTorch. A probe holds the
memory that is needed, not the memory that is free: the number of layers that keep activations
follows from the free memory at the start of a run.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.core.cache.cache_key import canonical
from tasks.core.package_version import version
from tasks.core.settings.train import TrainSettings
from tasks.core.system.atomic_write import write_text
from tasks.core.system.home import home

TARGET_SHARE = 0.76  # of the memory limit; the rest is for other programs and for fragmentation
MINIMUM_CAPABILITY = (7, 0)  # Volta: the first with tensor cores, for float16
BFLOAT16_CAPABILITY = (8, 0)  # Ampere: the first with bfloat16; also the least of Triton
CONTEXT_GIB = 0.5  # GPU memory of the CUDA context, outside of PyTorch's allocator
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight, its block's scale, that scale's own scale
TOKENS_STEP = 256  # probes are stored for multiples of this
_SETTINGS = (
    "lora_rank",
    "expert_rank",
    "target_modules",
    "last_layers",
    "extra_modules",
    "use_dora",
    "quantization",
    "dtype",
    "optimizer",
    "fast_path",
    "backward",
    "offload_activations",
)


@dataclass(frozen=True)
class Gpu:
    """The first GPU that this process may use, as reported by its driver.

    Attributes:
        total_gib: All of its memory.
        capability: Compute capability, such as 8.6; "" where the driver does not tell.
    """

    name: str
    driver: str
    total_gib: float
    capability: str = ""

    @property
    def too_old(self) -> str:
        """Why the pipeline can't compute on it; "" if it can."""
        if self._has(MINIMUM_CAPABILITY):
            return ""
        least = ".".join(map(str, MINIMUM_CAPABILITY))
        return (
            f"{self.name} has compute capability {self.capability}, computing in 16 bit needs "
            f"{least}"
        )

    @property
    def uses_float16(self) -> bool:
        """Whether it computes in float16, as it has no bfloat16."""
        return not self.too_old and not self._has(BFLOAT16_CAPABILITY)

    def no_kernels(self, dtype: str) -> str:
        """Why the fused training step does not run on it in a compute type; "" if it does."""
        if dtype == "float16" or (dtype == "auto" and self.uses_float16):
            return "its kernels compute in bfloat16 and float32, not in float16"
        return "" if self._has(BFLOAT16_CAPABILITY) else "Triton needs compute capability 8.0"

    def _has(self, least: tuple[int, int]) -> bool:
        return not self.capability or tuple(map(int, self.capability.split("."))) >= least


@dataclass(frozen=True)
class Probe:
    """A measured training step; all memory is reserved by PyTorch.

    Attributes:
        window_tokens: Limit to which windows were split, between samples.
        step_path: fast or plain.
        layers: Layers that could keep their activations.
        load_gib: While the base model was loading.
        base_gib: In a step that keeps the activations of no layer.
        layer_gib: For each layer that keeps its activations.
        kept_layers: In the step that was timed.
        tokens_per_s: Speed of that step.
    """

    window_tokens: int
    step_path: str
    layers: int
    load_gib: float
    base_gib: float
    layer_gib: float
    kept_layers: int
    tokens_per_s: float

    def kept_within(self, limit_gib: float) -> int:
        """Layers that should keep their activations within a memory limit."""
        if self.layer_gib <= 0:
            return 0
        available = TARGET_SHARE * limit_gib - self.base_gib
        return max(0, min(self.layers, int(available / self.layer_gib)))

    def reserved_gib(self, kept_layers: int) -> float:
        """Peak memory of a run in which this many layers keep their activations."""
        return max(self.load_gib, self.base_gib + kept_layers * self.layer_gib)


def find_gpu() -> Gpu | None:
    """Name, driver and memory of the first GPU; None where there is none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] or "0"
    fields, options = "name,driver_version,memory.total", "--format=csv,noheader,nounits"
    for wanted in (f"{fields},compute_cap", fields):  # old drivers do not know the last one
        try:
            done = subprocess.run(
                [command, f"--query-gpu={wanted}", options, "-i", first],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
            name, driver, total, *more = map(str.strip, done.stdout.splitlines()[0].split(","))
            return Gpu(name, driver, float(total) / 1024, *more)
        except (OSError, subprocess.TimeoutExpired):
            return None
        except (subprocess.CalledProcessError, ValueError, IndexError):
            continue
    return None


def limit_gib(gpu: Gpu | None, vram_gib: float | None) -> float | None:
    """GPU memory that a process may use: the cap or what the GPU has; None without both."""
    limits = [x for x in (vram_gib, gpu and gpu.total_gib - CONTEXT_GIB) if x]
    return min(limits) if limits else None


def facts(gpu: Gpu, weights: Path, settings: TrainSettings) -> dict[str, Any]:
    """Everything that a probe depends on, except the length of the window."""
    config = (weights / "config.json").read_bytes()
    return {
        "gpu": gpu.name,
        "driver": gpu.driver,
        "torch": version("torch"),
        "model": hashlib.sha256(config).hexdigest(),
        **{name: getattr(settings, name) for name in _SETTINGS},
    }


def read(about: Mapping[str, Any], tokens: int) -> Probe | None:
    """The probe for windows of about this many tokens."""
    return read_all(about).get(rounded(tokens))


def read_all(about: Mapping[str, Any]) -> dict[int, Probe]:
    """All matching probes by the tokens of the longest window, rounded up."""
    known = _load().get(_key(about), {}).get("probes", {})
    try:
        return {int(tokens): Probe(**values) for tokens, values in known.items()}
    except TypeError:  # written by a version with other fields
        return {}


def write(about: Mapping[str, Any], tokens: int, probe: Probe) -> None:
    """Store a probe, replacing an earlier one of the same window."""
    known = _load()
    entry = known.setdefault(_key(about), {"about": dict(about), "probes": {}})
    entry["probes"][str(rounded(tokens))] = asdict(probe)
    write_text(_path(), json.dumps(known, indent=1, sort_keys=True) + "\n")


def rounded(tokens: int) -> int:
    """Tokens rounded up, as windows of about the same length share a probe."""
    return -(-tokens // TOKENS_STEP) * TOKENS_STEP


def _path() -> Path:
    return home() / "artifacts" / ".probes.json"


def _load() -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known


def _key(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(dict(about)).encode()).hexdigest()[:16]
