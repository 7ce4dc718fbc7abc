"""Answers and tests -> verdicts, by the sandbox, after the tests themselves were tested.

Before anything generated is judged, every chosen problem's own solution must pass and an empty
answer must not: a broken sandbox, Python or benchmark shows there, and never in a model's score.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tasks.core.errors import PipelineError
from tasks.core.sandbox import INFRA, PASS, Job, Outcome, Sandbox
from tasks.evaluation.humaneval import Problem, program_of
from tasks.evaluation.results import Attempt, ProblemResult

_TIMES_CANONICAL = 4.0
Done = Callable[[int], None]


def _nobody(count: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Bench:
    """A sandbox that passed the self-test of the problems.

    Attributes:
        sandbox: Where programs run.
        problems: Tested.
        limits_s: Time limit of each problem, by id.
    """

    sandbox: Sandbox
    problems: tuple[Problem, ...]
    limits_s: Mapping[str, float] = field(default_factory=dict)


def self_test(sandbox: Sandbox, problems: Sequence[Problem], timeout_s: float) -> Bench:
    """Run the problems' own solutions, and empty ones.

    Args:
        sandbox: Where they run.
        problems: Those that are going to be used.
        timeout_s: Least time for one program; a problem gets more where its own solution takes
            over a quarter of it.

    Raises:
        PipelineError: A solution fails, or an empty answer passes; names them.
    """
    right = [job(p, p.prompt + p.solution, 8 * timeout_s) for p in problems]
    empty = [job(p, p.prompt, timeout_s) for p in problems]
    outcomes = sandbox.run_all([*right, *empty])
    solved, unsolved = outcomes[: len(problems)], outcomes[len(problems) :]
    wrong = [
        f"{p.problem_id}: its own solution is {o.verdict} ({o.detail})"
        for p, o in zip(problems, solved, strict=True)
        if o.verdict != PASS
    ]
    wrong += [
        f"{p.problem_id}: an empty answer is {o.verdict}"
        for p, o in zip(problems, unsolved, strict=True)
        if o.verdict in (PASS, INFRA)
    ]
    if wrong:
        raise PipelineError(
            f"HumanEval's self-test failed on {len(wrong)} of {2 * len(problems)} programs: "
            + "; ".join(wrong[:3]),
            "Run on an idle machine, raise evaluate.test_timeout_s, or set "
            "evaluate.humaneval_problems to 0.",
        )
    limits_s = {
        p.problem_id: max(timeout_s, _TIMES_CANONICAL * o.seconds)
        for p, o in zip(problems, solved, strict=True)
    }
    return Bench(sandbox, tuple(problems), limits_s)


def job(problem: Problem, program: str, timeout_s: float) -> Job:
    """The sandbox's job for a program that should solve a problem."""
    return Job(
        program=program,
        entry=problem.entry,
        setup=problem.prompt,  # some checks use helpers that the prompt defines
        checks=f"{problem.checks}\n\ncheck({problem.entry})\n",
        timeout_s=timeout_s,
    )


def judge(
    bench: Bench, results: Sequence[ProblemResult], done: Done = _nobody
) -> tuple[ProblemResult, ...]:
    """The same results with a verdict on every attempt.

    Equal programs are run once, so that base and tuned model can't differ by the machine's mood.

    Args:
        bench: Tested on the problems of `results`.
        results: Attempts without a verdict.
        done: Called with the number of programs finished so far.
    """
    problems = {p.problem_id: p for p in bench.problems}

    def job_of(result: ProblemResult, attempt: Attempt) -> Job:
        problem = problems[result.problem_id]
        program = program_of(problem, result.style, attempt.text)
        return job(problem, program, bench.limits_s[result.problem_id])

    tried = [job_of(r, a) for r in results for a in (*r.base, *r.tuned)]
    distinct = list(dict.fromkeys(tried))
    outcomes = dict(zip(distinct, bench.sandbox.run_all(distinct, done), strict=True))

    def judged(result: ProblemResult, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
        return tuple(_with(outcomes[job_of(result, a)], a) for a in attempts)

    return tuple(replace(r, base=judged(r, r.base), tuned=judged(r, r.tuned)) for r in results)


def _with(outcome: Outcome, attempt: Attempt) -> Attempt:
    return replace(attempt, verdict=outcome.verdict, detail=outcome.detail)
