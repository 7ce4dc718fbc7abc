"""Grading: answers to problems with tests are run in the sandbox; outcomes are cached."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from tasks.core.sandbox import INFRA, NOT_JUDGED, TIMEOUT, Job, Limits, Outcome, Sandbox
from tasks.evaluation.generation.completion_cache import (
    SANDBOX,
    CompletionCache,
    key_of,
    maker,
)
from tasks.evaluation.problems.languages import tools
from tasks.evaluation.problems.programs import program_of
from tasks.evaluation.problems.protocol import Problem
from tasks.evaluation.results import MATCHED, Attempt, Attempts, ProblemResult

_NOT_CACHED = (INFRA, TIMEOUT)  # they depend on the load of the machine
_CHECK = re.compile(r"^def check\(", re.MULTILINE)
_TEST = re.compile(r"^def (test_\w*)\(\)", re.MULTILINE)


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
    if problem.language:
        tool = tools.TOOLS[problem.language]
        return Job(
            program=tool.driver(f"{program}\n{problem.checks}\n"),
            entry="run",
            checks="run()",
            timeout_s=max(timeout_s, tools.LEAST_S),
            together=True,
            limits=Limits(tools.MEMORY_MIB, tools.PROCESSES),
            executable=tool.executable(),
            folders=tool.folders(),
        )
    if _CHECK.search(problem.checks):
        calls = f"\n\ncheck({problem.entry})\n"
    else:
        calls = "\n" + "".join(f"{name}()\n" for name in _TEST.findall(problem.checks))
    return Job(
        program=program,
        entry=problem.entry,
        # some checks use helpers that the prompt defines
        setup=problem.prompt if problem.trusted_prompt and not problem.in_words else "",
        checks=f"{problem.checks}{calls}",
        timeout_s=timeout_s,
        together=problem.together,
        packages=problem.packages,
    )


def modes(problems: Sequence[Problem]) -> dict[str, str]:
    """How many tests of each of the user's sets run where, for the report."""
    found: dict[str, Counter[str]] = {}
    for p in problems:
        if not p.of_user:
            continue
        mode = "not judged" if p.not_judged else "together" if p.together else "isolated"
        found.setdefault(p.suite, Counter())[mode] += 1
    return {
        f"tests of {suite}": ", ".join(f"{count} {mode}" for mode, count in sorted(counts.items()))
        for suite, counts in found.items()
    }


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

    run = [r for r in results if r.style not in MATCHED and not problems[r.problem_id].not_judged]
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
        why = problems[result.problem_id].not_judged
        unjudged = Outcome(NOT_JUDGED, why) if why else None
        found = ((a, unjudged or outcomes[job_of(result, a)]) for a in attempts)
        return tuple(replace(a, outcome=o.status, detail=o.detail) for a, o in found)

    return tuple(
        r if r.style in MATCHED else replace(r, base=graded(r, r.base), tuned=graded(r, r.tuned))
        for r in results
    )
