"""Checkpoints that are whole or not there; the last two are kept.

A checkpoint is written in a folder of another name, flushed to disk and renamed, so that a kill at
any moment leaves the one before untouched. It holds what the next step depends on: the parameters,
the optimizer, the step and the counters. The order of the data and the dropout follow from the step
alone.
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
    """Write the state after `step` steps and drop all but the newest checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / f"{PREFIX}{step:08d}", folder / f".{PREFIX}{step:08d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    torch.save(dict(state), partial / STATE_FILE)
    flush(partial / STATE_FILE)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    flush(folder)
    for old in _whole(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The state of the newest whole checkpoint, on the CPU; None where there is none."""
    for path in reversed(_whole(folder)):
        state: dict[str, Any] = torch.load(path / STATE_FILE, map_location="cpu", weights_only=True)
        return state
    return None


def on_cpu(state: Any) -> Any:
    """A copy of a nested state with all its tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: on_cpu(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(on_cpu(value) for value in state)
    return state


def _whole(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(p for p in folder.glob(f"{PREFIX}*") if (p / STATE_FILE).is_file())
