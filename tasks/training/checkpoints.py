"""Atomic checkpoints; the last two are kept.

A checkpoint is written to a temporary folder, flushed to disk and renamed, so that a kill at any
moment leaves the previous one intact. It holds what the next step depends on: parameters, optimizer
state, step and counters. Data order and dropout are pure functions of the step.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.core.system.atomic_write import flush

PREFIX = "step-"
STATE_FILE = "state.pt"
KEPT = 2


def save(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `step` steps; delete all but the newest `KEPT` checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / f"{PREFIX}{step:08d}", folder / f".{PREFIX}{step:08d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    torch.save(dict(state), partial / STATE_FILE)
    flush(partial / STATE_FILE)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    flush(folder)  # the rename itself must survive a power failure
    for old in _complete(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The state of the newest complete checkpoint, on the CPU; None if there is none."""
    complete = _complete(folder)
    if not complete:
        return None
    path = complete[-1] / STATE_FILE
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def on_cpu(state: Any) -> Any:
    """A copy of a nested state with all its tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: on_cpu(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(on_cpu(value) for value in state)
    return state


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob(f"{PREFIX}*") if (p / STATE_FILE).is_file())
