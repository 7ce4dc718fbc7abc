"""A task that must not be trained on, and what of it is looked for.

The standard library alone, since `finetune plan` asks for the tasks' files too.
"""

import ast
import pickle
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

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
class TaskSet:
    """Tasks, told apart by a digest: processes get them with every batch, and unpack and arrange
    them once."""

    digest: str
    packed: bytes = field(compare=False, repr=False)

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> "TaskSet | None":
        """The set of some tasks; None of none."""
        known = tuple(tasks)
        digest = sha256(repr(known).encode("utf-8", "surrogatepass")).hexdigest()
        return cls(digest, pickle.dumps(known)) if known else None

    def tasks(self) -> tuple[Task, ...]:
        """The tasks."""
        return pickle.loads(self.packed)  # type: ignore[no-any-return]


def make_task(task_id: str, prompt: str, solution: str, tests: str = "", entry: str = "") -> Task:
    """A task from its texts; where the prompt is Python, its docstring is what is looked for."""
    parsed = ((text, parse(text)) for text in (prompt + solution, solution))
    program, tree = next(((text, tree) for text, tree in parsed if tree), ("", None))
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


def parse(text: str) -> ast.Module | None:
    """A text as a syntax tree; None if it is no Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
