"""Small evaluations for the tests of gate, summary and report."""

import random

from tasks.evaluation.results import (
    AnsweredPrompt,
    Attempt,
    Cost,
    Evaluation,
    ProblemResult,
    RowResult,
    RowSet,
    Split,
)


def rows(shift: float, projects: int = 12, each: int = 5, seed: int = 0) -> tuple[RowResult, ...]:
    """Rows whose loss differs by about `shift` nats per token between base and tuned."""
    draw = random.Random(seed)
    found = []
    for i in range(projects * each):
        tokens, base = draw.randint(20, 80), draw.uniform(1.0, 2.0)
        tuned = base + shift + draw.gauss(0, 0.02)
        right = tokens // 2
        found.append(
            RowResult(
                row_id=f"{i:032x}",
                cluster=f"project-{i % projects}",
                tokens=tokens,
                text_bytes=3 * tokens,
                base_loss_sum=base * tokens,
                tuned_loss_sum=tuned * tokens,
                base_correct=right,
                tuned_correct=right - round(shift * tokens / 2),
            )
        )
    return tuple(found)


def problems(
    won: int, lost: int, both: int, none: int, text: str = "return 1"
) -> tuple[ProblemResult, ...]:
    pairs = [("wrong", "pass")] * won + [("pass", "wrong")] * lost
    pairs += [("pass", "pass")] * both + [("wrong", "wrong")] * none
    return tuple(
        ProblemResult(
            suite="humaneval",
            problem_id=f"HumanEval/{i}",
            style="prompt",
            prompt="def f():\n",
            base=(Attempt(text, 5, True, base),),
            tuned=(Attempt(text, 5, False, tuned),),
        )
        for i, (base, tuned) in enumerate(pairs)
    )


def evaluation(
    held_out: float = -0.3,
    probe: float = 0.0,
    tried: tuple[ProblemResult, ...] = (),
    text: str = "return 2",
) -> Evaluation:
    return Evaluation(
        row_sets=(RowSet("held-out", rows(held_out)), RowSet("untouched code", rows(probe), True)),
        problems=tried,
        samples=(
            AnsweredPrompt(
                "ab" * 16, "say 2", "2", Attempt("one", 1, False), Attempt(text, 3, True)
            ),
        ),
        splits=(Split("train", 1000, 50_000, 40), Split("test", 60, 3000, 12)),
        sandbox="bwrap",
        not_measured=("Fill-in-the-middle: the tokenizer lacks the tokens.",),
        settings={"batch_size": 8, "greedy": True},
        costs=(Cost("loss", 12.0, 6000, 1.5), Cost("tests", 3.0)),
    )
