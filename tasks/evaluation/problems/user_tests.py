"""The user's own sets with tests, as problems."""

import ast
from collections.abc import Sequence
from pathlib import Path

from tasks.core.settings.evaluate import EvaluateSettings
from tasks.evaluation.generation.stop_rules import parsed
from tasks.evaluation.problems import user_sets
from tasks.evaluation.problems.protocol import OnFailure, Problem, ProblemSet
from tasks.evaluation.problems.user_sets import SetLine


def from_lines(suite: str, lines: Sequence[SetLine]) -> list[Problem]:
    """The problems of a set; a prompt that does not end with the function's docstring is words."""
    return [
        Problem(
            problem_id=line.name,
            prompt=line.prompt,
            entry=line.entry,
            solution=line.solution,
            checks=line.tests,
            suite=suite,
            in_words=not _ends_with_docstring(line.prompt, line.entry),
            input=line.input,
        )
        for line in lines
    ]


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
    return [p for own in sets for p in from_lines(own.name, user_sets.read(own))]


USER_TESTS = ProblemSet(
    suite="",
    title="",
    measures="pass@1 on your own tests",
    read=_chosen,
    on_failure=OnFailure.STOP,
    remedy="Correct these lines, or raise evaluate.test_timeout_s.",
)
