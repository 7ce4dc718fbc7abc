"""A thousand evaluations in which nothing has changed: how often does the gate say otherwise?"""

from collections import Counter

import numpy as np

from tasks.evaluation.gate import verdict as gate
from tasks.evaluation.results import (
    Attempt,
    Evaluation,
    ProblemResult,
    RowResult,
    RowSet,
)

RUNS = 1_000
PROJECTS, ROWS = 24, 2
PROBLEMS = 40
Draw = np.random.Generator


def row_set(draw: Draw, name: str, *, probe: bool) -> RowSet:
    """Losses and hits that move by chance alone: by project and by row, either way alike."""
    count = PROJECTS * ROWS
    tokens = draw.integers(20, 200, count)
    base = draw.normal(1.5, 0.3, count).clip(0.2)
    moved = np.repeat(draw.normal(0, 0.05, PROJECTS), ROWS) + draw.normal(0, 0.05, count)
    right = draw.binomial(tokens, 0.6)
    gained = np.rint(-moved * tokens / 2).astype(int)
    rows = tuple(
        RowResult(
            str(i), str(i // ROWS), int(tokens[i]), 0,
            float(base[i] * tokens[i]), float((base[i] + moved[i]) * tokens[i]),
            int(right[i]), int(right[i] + gained[i]),
        )
        for i in range(count)
    )  # fmt: skip
    return RowSet(name, rows, probe)


def problems(draw: Draw, style: str) -> list[ProblemResult]:
    """Both models pass a problem with the chance that it has."""
    chance = draw.beta(0.5, 1.0, PROBLEMS)
    passed = draw.random((2, PROBLEMS)) < chance
    verdict = {True: (Attempt("", 1, True, "pass"),), False: (Attempt("", 1, True, "wrong"),)}
    return [
        ProblemResult("humaneval", str(i), style, "", verdict[bool(b)], verdict[bool(t)])
        for i, (b, t) in enumerate(passed.T)
    ]


def test_of_a_thousand_runs_without_effect_at_most_one_in_twenty_gets_a_verdict() -> None:
    draw = np.random.default_rng(0)
    verdicts: Counter[str] = Counter()
    for run in range(RUNS):
        evaluation = Evaluation(
            row_sets=(
                row_set(draw, "held-out", probe=False),
                row_set(draw, "untouched code", probe=True),
            ),
            problems=(*problems(draw, "completion"), *problems(draw, "prompt")),
        )
        verdicts[gate.decide(evaluation, resamples=200, seed=run, without_each=False).verdict] += 1
    assert verdicts["improved"] + verdicts["regressed"] <= 0.05 * RUNS
    assert verdicts["improved"] > 0  # a gate that never opens would pass as well
