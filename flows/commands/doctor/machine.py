"""Checks of the machine: disk space, leftovers of dead runs, sandbox, 4-bit quantization."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flows.orchestration.finding import Check, Finding
from flows.store_access import open_store, root
from tasks.core.cache import manifest as manifests
from tasks.core.cache.store import TRASH
from tasks.core.errors import PipelineError
from tasks.core.models import memory_probes
from tasks.core.system.file_lock import is_locked

GIB = 2**30
MIN_FREE_GIB = 1.0  # less is not enough for a small model either
FREE_GIB = 20.0  # a 3B model: 16-bit copy, merged model, checkpoints
DRIVER = Path("/proc/driver/nvidia/version")
PROBE = """
import torch, bitsandbytes.functional as f
device = "cuda" if torch.cuda.is_available() else "cpu"
packed, state = f.quantize_4bit(torch.ones(64, 64, device=device), quant_type="nf4")
f.dequantize_4bit(packed, state)
print(device, torch.version.cuda)
if device == "cuda":
    print(torch.cuda.get_device_name(), *torch.cuda.get_device_capability(), sep="|")
"""


def disk() -> list[Finding]:
    """Free disk space for the artifacts."""
    folder = _existing(root())
    free = shutil.disk_usage(folder).free / GIB
    if free >= FREE_GIB:
        return []
    return [
        Finding(
            "disk",
            f"{free:.1f} GiB free at {folder}, a 3B model needs {FREE_GIB:.0f}",
            "Run `finetune gc --dry-run`, or set FINETUNE_HOME to a folder on a larger disk.",
            is_note=free >= MIN_FREE_GIB,
        )
    ]


def leftovers() -> list[Finding]:
    """Work folders of dead runs without a checkpoint, and half-removed artifacts."""
    stale = [folder for folder in (root() / ".work").glob("*") if _is_stale(folder)]
    stale += list((root() / TRASH).glob("*"))
    if not stale:
        return []
    shown = ", ".join(str(path.relative_to(root())) for path in stale[:3])
    return [
        Finding(
            "leftovers",
            f"{len(stale)} folders of dead runs in {root()}: {shown}",
            "Remove them; none of them contains a checkpoint.",
            _sweep,
            is_note=True,
        )
    ]


def _is_stale(folder: Path) -> bool:
    """Whether `Store.sweep` would remove a work folder."""
    if is_locked(root() / ".locks" / folder.name):
        return False
    finished = manifests.read(folder / "out") is not None
    return not finished and not any((folder / "scratch").glob("*"))


def _sweep() -> None:
    with open_store() as store:
        store.sweep()
    for path in (root() / TRASH).glob("*"):
        shutil.rmtree(path, ignore_errors=True)


def sandbox() -> list[Finding]:
    """The sandbox of generated code: the level that runs would use is able to run a program."""
    level, reason = sandbox_level()
    if level:
        return []
    return [
        Finding(
            "sandbox",
            f"{reason}; generated code is not run",
            "Install bubblewrap (sudo apt-get install bubblewrap), or allow user namespaces "
            "(sysctl kernel.unprivileged_userns_clone=1; on Ubuntu 24.04 "
            "kernel.apparmor_restrict_unprivileged_userns=0).",
            is_note=True,
        )
    ]


def sandbox_level() -> tuple[str, str]:
    """The strongest level that works here, of those that need no opt-in, and why it is no better;
    level "": none works."""
    from tasks.core.sandbox import BUBBLEWRAP, UNSHARE, Sandbox

    try:
        best = Sandbox.best(UNSHARE)
    except PipelineError as error:
        return "", error.problem
    reasons = ["" if best.level == BUBBLEWRAP else Sandbox(BUBBLEWRAP).defect() or ""]
    if best.without_group:
        reasons += [f"no cgroup, so total memory is sampled: {best.without_group}"]
    return best.name, "; ".join(filter(None, reasons))


def quantization(python: str = sys.executable) -> list[Finding]:
    """4-bit quantization by bitsandbytes, on the GPU if there is one.

    Runs in a separate process, because a broken CUDA library can abort the process.

    Args:
        python: Interpreter to test.
    """
    try:
        done = subprocess.run(
            [python, "-c", PROBE], capture_output=True, text=True, timeout=180, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Finding("4-bit", f"the test did not run: {error}", "Run `make setup` again.")]
    if done.returncode:
        return [
            Finding(
                "4-bit",
                f"bitsandbytes cannot quantize: {_last_line(done.stderr)}",
                "Run `python -m bitsandbytes`, and install the CUDA libraries or the bitsandbytes "
                "version that it names. `--set hardware.device=cpu` runs without the GPU.",
            )
        ]
    if DRIVER.exists() and done.stdout.startswith("cpu"):
        built = done.stdout.split()[1]
        return [
            Finding(
                "GPU",
                f"there is an NVIDIA driver, but torch (built for CUDA {built}) sees no GPU",
                "Install a torch build for the CUDA version that `nvidia-smi` shows.",
            )
        ]
    return _old_gpu(done.stdout)


def _old_gpu(output: str) -> list[Finding]:
    """A GPU that computes in no 16-bit type, or without bfloat16, from the output of `PROBE`."""
    name, *capability = output.splitlines()[-1].split("|") if "|" in output else ("", "9", "0")
    gpu = memory_probes.Gpu(name, "", 0.0, ".".join(capability))
    if gpu.uses_float16:
        problem = (
            f"{name} (compute capability {gpu.capability}) has no bfloat16: models run in float16, "
            "trainings with loss scaling and without the fast path"
        )
        remedy = (
            "If activations of a base exceed float16, run with `--set train.dtype=float32 "
            "--set evaluate.dtype=float32`."
        )
        return [Finding("GPU", problem, remedy, is_note=True)]
    remedy = "Use an RTX 20, T4 or newer, or run with `--set hardware.device=cpu`."
    return [Finding("GPU", gpu.too_old, remedy)] if gpu.too_old else []


def in_order() -> dict[Check, Callable[[], str]]:
    """Lines for the checks that passed."""
    return {
        disk: lambda: f"{shutil.disk_usage(_existing(root())).free / GIB:,.0f} GiB free",
        leftovers: lambda: "no leftovers of dead runs",
        sandbox: _sandbox_text,
        quantization: _device_text,
    }


def _sandbox_text() -> str:
    level, reason = sandbox_level()
    return f"generated code runs under {level}{f' ({reason})' if reason else ''}"


def _device_text() -> str:
    gpu = memory_probes.find_gpu()
    where = f"{gpu.name}, {gpu.total_gib:.0f} GiB" if gpu else "the CPU (no NVIDIA GPU)"
    return f"bitsandbytes works; models run on {where}"


def _existing(path: Path) -> Path:
    """The nearest existing folder above a path."""
    while not path.exists():
        path = path.parent
    return path


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"
