"""The user's own sets with tests, as problems."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tasks.core.languages.python.crossing import why_together
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.evaluation.generation.stop_rules import parsed
from tasks.evaluation.problems import user_sets
from tasks.evaluation.problems.languages.tools import TOOLS
from tasks.evaluation.problems.protocol import OnFailure, Problem, ProblemSet
from tasks.evaluation.problems.user_sets import SetLine
from tasks.evaluation.results import NOT_RUN


def from_lines(
    suite: str,
    lines: Sequence[SetLine],
    mode: Literal["auto", "isolated", "together"] = "auto",
    packages: tuple[str, ...] = (),
) -> list[Problem]:
    """The problems of a set; a prompt that does not end with the function's docstring is words."""
    found = []
    for line in lines:
        if line.language:
            found.append(_in_other_language(suite, line, mode))
            continue
        in_words = not _ends_with_docstring(line.prompt, line.entry)
        known = () if in_words else _defined(line.prompt)
        why = why_together(line.tests, line.entry, known) if mode != "together" else ""
        problem = Problem(
            problem_id=line.name,
            prompt=line.prompt,
            entry=line.entry,
            solution=line.solution,
            checks=line.tests,
            suite=suite,
            in_words=in_words,
            input=line.input,
            together=mode == "together" or (mode == "auto" and why != ""),
            not_judged=why if mode == "isolated" else "",
            packages=packages,
            of_user=True,
        )
        found.append(problem)
    return found


def _in_other_language(suite: str, line: SetLine, mode: str) -> Problem:
    """A problem whose checks follow the answer in one program."""
    tool = TOOLS[line.language]
    why = f"no {missing}" if (missing := tool.missing(line.solution + line.tests)) else ""
    if mode == "isolated":
        why = f"tests in {line.language} need the answer in their own program"
    return Problem(
        problem_id=line.name,
        prompt=line.prompt,
        entry="",
        solution=line.solution,
        checks=line.tests,
        suite=suite,
        together=True,
        not_judged=f"{NOT_RUN}{why}" if why else "",
        of_user=True,
        language=line.language,
        stop_words=line.stop_words,
    )


def _defined(prompt: str) -> set[str]:
    """Names that a prompt in Python binds."""
    tree = parsed(prompt)
    nodes = list(ast.walk(tree)) if tree else []
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    aliases = (n.asname or n.name for n in nodes if isinstance(n, ast.alias))
    return names | {name.partition(".")[0] for name in aliases}


def _ends_with_docstring(prompt: str, entry: str) -> bool:
    """Whether a prompt is code whose function has a docstring and no body yet."""
    tree = parsed(prompt)
    nodes = [n for n in (tree.body if tree else ()) if getattr(n, "name", "") == entry]
    function = nodes[-1] if nodes else None
    return (
        isinstance(function, ast.FunctionDef)
        and len(function.body) == 1
        and ast.get_docstring(function) is not None
    )


def _chosen(settings: EvaluateSettings, held_out: Path | None) -> list[Problem]:
    sets = [own for own in settings.sets if own.kind == "tests"]
    return [
        p for own in sets for p in from_lines(own.name, user_sets.read(own), own.mode, own.packages)
    ]


USER_TESTS = ProblemSet(
    suite="",
    title="",
    measures="pass@1 on your own tests",
    read=_chosen,
    on_failure=OnFailure.STOP,
    remedy="Correct these lines, or raise evaluate.test_timeout_s.",
)
