"""metrics.jsonl: one line a logged step, written as it happens, cut back when a run resumes.

TensorBoard's event files can be written from the same lines.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.errors import PipelineError
from tasks.core.system.atomic_write import write_text

METRICS_FILE, BOARD_FOLDER = "metrics.jsonl", "tensorboard"


class MetricsLog:
    """Appends to a metrics.jsonl.

    Args:
        folder: Where it stands.
        resume_step: Lines of later steps are dropped: the steps they tell of run again.
        tensorboard: Write event files in a folder beside it, too.

    Raises:
        PipelineError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, resume_step: int, tensorboard: bool = False) -> None:
        self._path = folder / METRICS_FILE
        kept = [line for line in read_metrics(self._path) if line["step"] <= resume_step]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._board = _board(folder / BOARD_FOLDER, resume_step) if tensorboard else None

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one line, rounded to what is worth reading."""
        rounded = {k: round(v, 9) if isinstance(v, float) else v for k, v in line.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")
        if self._board is not None:
            for name in sorted(set(line) - {"step"}):
                self._board.add_scalar(name, line[name], line["step"])
            self._board.flush()


def _board(folder: Path, resume_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PipelineError(
            f"train.tensorboard is true and TensorBoard can't be imported: {error}",
            "Install it (pip install 'finetune-pipeline[tensorboard]'), or set it to false.",
        ) from error
    writer: Any = SummaryWriter  # it carries no types
    return writer(str(folder), purge_step=resume_step + 1)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics.jsonl; [] where there is none. A line cut by a kill is left."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
