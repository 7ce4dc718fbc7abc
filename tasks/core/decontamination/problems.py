"""A problem that must not be trained on, and the texts and functions of it that are searched for.

Uses the standard library alone, because `finetune plan` imports it to list the problems' files.
"""

import ast
import pickle
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from tasks.core.languages.python.source import parse_python

EXAMPLES_BEGIN = (">>>", "for example", "example", "examples", "e.g.", "note")


@dataclass(frozen=True)
class BenchmarkProblem:
    """One problem of a benchmark, or one that is held out.

    Attributes:
        problem_id: Such as "HumanEval/0".
        texts: (name, text) of what a row must not hold: "description" (words of the docstring),
            "prompt" (with examples), "solution".
        programs: Python text whose functions a row must not hold.
        tests: Text that defines check(candidate), "" if there is none.
        setup: Text that the tests need before them.
        arity: Number of arguments in the tests' calls; 0 if unknown.
    """

    problem_id: str
    texts: tuple[tuple[str, str], ...] = ()
    programs: tuple[str, ...] = ()
    tests: str = field(default="", compare=False)
    setup: str = field(default="", compare=False)
    arity: int = field(default=0, compare=False)


@dataclass(frozen=True)
class PackedProblems:
    """Problems in pickled form with their digest.

    Every batch that goes to a worker process carries them. The digest is what is compared and
    hashed, so each process unpacks and indexes them once.
    """

    digest: str
    packed: bytes = field(compare=False, repr=False)

    @classmethod
    def of(cls, problems: Iterable[BenchmarkProblem]) -> "PackedProblems | None":
        """The packed problems; None if there are none."""
        known = tuple(problems)
        digest = sha256(repr(known).encode("utf-8", "surrogatepass")).hexdigest()
        return cls(digest, pickle.dumps(known)) if known else None

    def unpack(self) -> tuple[BenchmarkProblem, ...]:
        """The problems."""
        return pickle.loads(self.packed)  # type: ignore[no-any-return]  # pickle returns Any


def make_problem(
    problem_id: str, prompt: str, solution: str, tests: str = "", entry: str = ""
) -> BenchmarkProblem:
    """A problem from its texts; the docstring of a Python prompt is also searched for alone."""
    # a prompt in words followed by Python does not parse; the solution alone may
    parsed = ((text, parse_python(text)[0]) for text in (prompt + solution, solution))
    program, source = next(((text, source) for text, source in parsed if source), ("", None))
    body = source.module.body if source else []
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    named = [node for node in functions if node.name == entry] or functions[-1:]
    asked = (ast.get_docstring(named[0]) if named else "") or prompt
    texts = {"description": description(asked), "prompt": asked, "solution": solution}
    # equal texts are listed once, under the first of their names
    unique = {text: name for name, text in reversed(texts.items()) if text.strip()}
    imports = (ast.unparse(n) for n in body if isinstance(n, ast.Import | ast.ImportFrom))
    return BenchmarkProblem(
        problem_id,
        tuple((name, text) for text, name in reversed(unique.items())),
        (program,) if named else (),
        tests if named and "def check" in tests else "",
        program if len(functions) > 1 else "\n".join(imports),
        len(named[0].args.args) if named else 0,
    )


def description(text: str) -> str:
    """A docstring up to its examples; all of it if it begins with them."""
    kept: list[str] = []
    for line in textwrap.dedent(text).strip().splitlines():
        if line.strip().lower().startswith(EXAMPLES_BEGIN):
            break
        kept.append(line)
    return "\n".join(kept).strip() or text
