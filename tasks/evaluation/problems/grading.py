"""Answers and tests -> verdicts, by the sandbox, after the tests themselves were tested.

Before anything generated is judged, every chosen problem's own solution must pass and an empty
answer must not: a broken sandbox, Python or benchmark shows there, and never in a model's score.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from tasks.core.errors import PipelineError
from tasks.core.sandbox import (
    INFRA,
    PASS,
    TIMEOUT,
    Job,
    Outcome,
    Sandbox,
)
from tasks.evaluation.generation.completion_cache import (
    SANDBOX,
    Memory,
    key_of,
    maker,
)
from tasks.evaluation.problems.humaneval import SUITE, Problem, program_of
from tasks.evaluation.results import MATCHED, Attempt, ProblemResult

_TIMES_CANONICAL = 4.0
_NOT_REMEMBERED = (INFRA, TIMEOUT)  # a busy machine's mood
_CHECK = re.compile(r"^def check\(", re.MULTILINE)
REMEDIES = {
    SUITE: "Run on an idle machine, raise evaluate.test_timeout_s, or set "
    "evaluate.humaneval_problems to 0."
}
Done = Callable[[int], None]
Memories = Mapping[str, Memory]


def _nobody(count: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Bench:
    """A sandbox that passed the self-test of the problems.

    Attributes:
        sandbox: Where programs run.
        problems: Tested.
        limits_s: Time limit of each problem, by id.
        timeout_s: Least time for one program.
        left_out: Why, for each problem that failed the self-test and was dropped.
    """

    sandbox: Sandbox
    problems: tuple[Problem, ...]
    limits_s: Mapping[str, float] = field(default_factory=dict)
    timeout_s: float = 4.0
    left_out: tuple[str, ...] = ()


def self_test(
    sandbox: Sandbox,
    problems: Sequence[Problem],
    timeout_s: float,
    droppable: Collection[str] = (),
) -> Bench:
    """Run the problems' own solutions, and empty ones.

    Args:
        sandbox: Where they run.
        problems: Those that are going to be used.
        timeout_s: Least time for one program; a problem gets more where its own solution takes
            over a quarter of it.
        droppable: Suites whose failing problems are left out, and named.

    Raises:
        PipelineError: A solution fails, or an empty answer passes; names them.
    """
    solved = [p for p in problems if p.solution]
    right = [job(p, p.whole_solution, 8 * timeout_s) for p in solved]
    empty = [job(p, "" if p.in_words else p.prompt, timeout_s) for p in problems]
    outcomes = sandbox.run_all([*right, *empty])
    right_by_id = {p.problem_id: o for p, o in zip(solved, outcomes, strict=False)}
    wrong: dict[str, str] = {}
    for p, nothing in zip(problems, outcomes[len(solved) :], strict=True):
        own = right_by_id.get(p.problem_id)
        if own is not None and own.status != PASS:
            wrong[p.problem_id] = f"its own solution is {own.status} ({own.detail})"
        elif nothing.status in (PASS, INFRA):
            wrong[p.problem_id] = f"an empty answer is {nothing.status}"
    fatal = [p for p in problems if p.problem_id in wrong and p.suite not in droppable]
    if fatal:
        suite = fatal[0].suite
        told = [f"{p.problem_id}: {wrong[p.problem_id]}" for p in fatal if p.suite == suite]
        name = "HumanEval's" if suite == SUITE else f"set {suite}'s"
        raise PipelineError(
            f"{name} self-test failed on {len(told)} of "
            f"{sum(p.suite == suite for p in problems)} problems: {'; '.join(told[:3])}",
            REMEDIES.get(suite, "Mend these lines, or raise evaluate.test_timeout_s."),
        )
    kept = tuple(p for p in problems if p.problem_id not in wrong)
    limits_s = {
        p.problem_id: max(timeout_s, _TIMES_CANONICAL * right_by_id[p.problem_id].seconds)
        if p.problem_id in right_by_id
        else timeout_s
        for p in kept
    }
    left_out = tuple(f"{name}: {why}" for name, why in wrong.items())
    return Bench(sandbox, kept, limits_s, timeout_s, left_out)


def job(problem: Problem, program: str, timeout_s: float) -> Job:
    """The sandbox's job for a program that should solve a problem."""
    call = f"\n\ncheck({problem.entry})\n" if _CHECK.search(problem.checks) else "\n"
    return Job(
        program=program,
        entry=problem.entry,
        # some checks use helpers that the prompt defines
        setup="" if problem.in_words else problem.prompt,
        checks=f"{problem.checks}{call}",
        timeout_s=timeout_s,
    )


def judge(
    bench: Bench,
    results: Sequence[ProblemResult],
    done: Done = _nobody,
    memories: Memories | None = None,
) -> tuple[ProblemResult, ...]:
    """The same results with a verdict on every attempt that tests judge.

    Equal programs are run once, so that base and tuned model can't differ by the machine's mood.

    Args:
        bench: Tested on the problems of `results`.
        results: Attempts without a verdict; others stay as they are.
        done: Called with the number of programs finished so far.
        memories: "base" and "tuned" -> verdicts remembered from earlier runs.
    """
    problems = {p.problem_id: p for p in bench.problems}
    judges = key_of(code=maker(SANDBOX), level=bench.sandbox.level, time=bench.timeout_s)
    limits = asdict(bench.sandbox.limits)

    def job_of(result: ProblemResult, attempt: Attempt) -> Job:
        problem = problems[result.problem_id]
        program = program_of(problem, result.style, attempt.text)
        return job(problem, program, bench.limits_s[result.problem_id])

    def key(job: Job) -> str:
        # the limit hangs on the machine's mood; a verdict that does is not remembered
        return key_of(job={**asdict(job), "timeout_s": 0}, judges=judges, limits=limits)

    tried = [r for r in results if r.style not in MATCHED]
    jobs = {
        who: list(dict.fromkeys(job_of(r, a) for r in tried for a in getattr(r, who)))
        for who in ("base", "tuned")
    }
    outcomes: dict[Job, Outcome] = {}
    for who, memory in (memories or {}).items():
        known = memory.get(map(key, jobs[who]))
        outcomes |= {j: Outcome(*known[key(j)]) for j in jobs[who] if key(j) in known}
    new = [j for j in dict.fromkeys((*jobs["base"], *jobs["tuned"])) if j not in outcomes]
    outcomes |= dict(zip(new, bench.sandbox.run_all(new, done), strict=True))
    for who, memory in (memories or {}).items():
        fresh = {j: outcomes[j] for j in jobs[who] if j in set(new)}
        memory.put(
            {
                key(j): [o.status, o.detail, o.seconds]
                for j, o in fresh.items()
                if o.status not in _NOT_REMEMBERED
            }
        )

    def judged(result: ProblemResult, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
        return tuple(_with(outcomes[job_of(result, a)], a) for a in attempts)

    return tuple(
        r if r.style in MATCHED else replace(r, base=judged(r, r.base), tuned=judged(r, r.tuned))
        for r in results
    )


def _with(outcome: Outcome, attempt: Attempt) -> Attempt:
    return replace(attempt, verdict=outcome.status, detail=outcome.detail)
