"""Held-out functions with doctests, which the stage `prompt` sets aside in HumanEval's format."""

import json
from dataclasses import replace
from pathlib import Path

from tasks.core.settings.evaluate import EvaluateSettings
from tasks.evaluation.problems.humaneval import problem_of
from tasks.evaluation.problems.protocol import OnFailure, Problem, ProblemSet, choose_problems

SUITE = "held-out"


def load(path: Path) -> list[Problem]:
    """All functions of the file."""
    with path.open(encoding="utf-8") as lines:
        problems = [problem_of(json.loads(line), SUITE) for line in lines]
    # their code comes from the training data: it never runs in the checker
    return [replace(problem, trusted_prompt=False) for problem in problems]


def _chosen(settings: EvaluateSettings, held_out: Path | None) -> list[Problem]:
    if held_out is None:
        return []
    return choose_problems(load(held_out), settings.held_out_problems, settings.seed)


HELD_OUT_FUNCTIONS = ProblemSet(
    suite=SUITE,
    title="the held-out functions",
    measures="pass@1 on held-out functions",
    read=_chosen,
    on_failure=OnFailure.LEAVE_OUT_PROBLEM,
    remedy="Set evaluate.held_out_problems to 0.",
)
