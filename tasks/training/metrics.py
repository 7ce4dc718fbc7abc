"""metrics.jsonl: one line a logged step, written as it happens, cut back when a run resumes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends to a metrics.jsonl.

    Args:
        path: The file; its folder exists.
        resume_step: Lines of later steps are dropped: the steps they tell of run again.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        kept = [line for line in read_metrics(path) if line["step"] <= resume_step]
        self._path = path
        temporary = path.with_suffix(".partial")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(path)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one line, rounded to what is worth reading."""
        rounded = {k: round(v, 9) if isinstance(v, float) else v for k, v in line.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")


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
