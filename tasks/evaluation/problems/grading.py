"""Grading: answers to problems with tests are run in the sandbox; outcomes are cached."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from tasks.core.sandbox import INFRA, TIMEOUT, Job, Outcome, Sandbox
from tasks.evaluation.generation.completion_cache import (
    SANDBOX,
    CompletionCache,
    key_of,
    maker,
)
from tasks.evaluation.problems.programs import program_of
from tasks.evaluation.problems.protocol import Problem
from tasks.evaluation.results import MATCHED, Attempt, Attempts, ProblemResult

_NOT_CACHED = (INFRA, TIMEOUT)  # they depend on the load of the machine
_CHECK = re.compile(r"^def check\(", re.MULTILINE)


@dataclass(frozen=True)
class TestedProblems:
    """Problems that passed the self-test, with the sandbox that they passed it in.

    Attributes:
        sandbox: Where programs run.
        problems: The problems.
        limits_s: Time limit of each problem, by id.
        timeout_s: Least time limit of one program.
        left_out: The reason for each problem that failed and was left out.
    """

    __test__ = False  # no test class, despite its name

    sandbox: Sandbox
    problems: tuple[Problem, ...]
    limits_s: Mapping[str, float] = field(default_factory=dict)
    timeout_s: float = 4.0
    left_out: tuple[str, ...] = ()


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


def grade(
    tested: TestedProblems,
    results: Sequence[ProblemResult],
    done: Callable[[int], None] = lambda count: None,
    caches: Mapping[str, CompletionCache] | None = None,
) -> tuple[ProblemResult, ...]:
    """The same results with an outcome for every attempt that tests grade.

    Equal programs run once, so that their outcomes can't differ by the load of the machine.

    Args:
        tested: The problems of `results` that have tests.
        results: Attempts without an outcome; others stay as they are.
        done: Called with the number of programs finished so far.
        caches: "base" and "tuned" -> outcomes of earlier runs.
    """
    problems = {p.problem_id: p for p in tested.problems}
    graders = key_of(code=maker(SANDBOX), level=tested.sandbox.level, time=tested.timeout_s)
    limits = asdict(tested.sandbox.limits)

    def job_of(result: ProblemResult, attempt: Attempt) -> Job:
        problem = problems[result.problem_id]
        program = program_of(problem, result.style, attempt.text)
        return job(problem, program, tested.limits_s[result.problem_id])

    def key(job: Job) -> str:
        # the time limit depends on the load of the machine; outcomes that do are not cached
        return key_of(job={**asdict(job), "timeout_s": 0}, judges=graders, limits=limits)

    run = [r for r in results if r.style not in MATCHED]
    jobs = {
        who: list(dict.fromkeys(job_of(r, a) for r in run for a in getattr(r, who)))
        for who in ("base", "tuned")
    }
    outcomes: dict[Job, Outcome] = {}
    for who, cache in (caches or {}).items():
        known = cache.get(map(key, jobs[who]))
        outcomes |= {j: Outcome(*known[key(j)]) for j in jobs[who] if key(j) in known}
    new = [j for j in dict.fromkeys((*jobs["base"], *jobs["tuned"])) if j not in outcomes]
    fresh = dict(zip(new, tested.sandbox.run_all(new, done), strict=True))
    outcomes |= fresh
    for who, cache in (caches or {}).items():
        found = {key(j): fresh[j] for j in jobs[who] if j in fresh}
        cache.put(
            {
                name: [o.status, o.detail, o.seconds]
                for name, o in found.items()
                if o.status not in _NOT_CACHED
            }
        )

    def graded(result: ProblemResult, attempts: Attempts) -> Attempts:
        found = ((a, outcomes[job_of(result, a)]) for a in attempts)
        return tuple(replace(a, outcome=o.status, detail=o.detail) for a, o in found)

    return tuple(
        r if r.style in MATCHED else replace(r, base=graded(r, r.base), tuned=graded(r, r.tuned))
        for r in results
    )
