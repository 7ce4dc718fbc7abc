"""Self-test: before anything generated is graded, the problems themselves are tested.

Every problem's own solution must pass and an empty answer must fail. A broken sandbox, Python or
problem set is thus found here, and never shows as a model's score.
"""

from collections.abc import Mapping, Sequence

from tasks.core.errors import PipelineError
from tasks.core.sandbox import INFRA, NOT_JUDGED, PASS, Sandbox
from tasks.evaluation.problems.grading import TestedProblems, job
from tasks.evaluation.problems.protocol import OnFailure, Problem
from tasks.evaluation.problems.registry import set_of

_TIMES_SOLUTION = 4.0  # time limit of a generated program, in times of the solution's own


class SelfTestError(PipelineError):
    """Problems of a suite failed their own test."""

    def __init__(self, problem: str, remedy: str, suite: str) -> None:
        super().__init__(problem, remedy)
        self.suite = suite


def self_test(sandbox: Sandbox, problems: Sequence[Problem], timeout_s: float) -> TestedProblems:
    """Run the problems' own solutions, and empty ones.

    Args:
        sandbox: Where they run.
        problems: Those that will be used.
        timeout_s: Least time limit; a problem gets more where its own solution takes over a
            quarter of it.

    Raises:
        SelfTestError: A solution fails, or an empty answer passes, in a set whose failing problems
            may not be left out.
    """
    tried = [p for p in problems if not p.not_judged]
    solved = [p for p in tried if p.solution]
    right = [job(p, p.whole_solution, 8 * timeout_s) for p in solved]
    empty = [job(p, "" if p.in_words else p.prompt, timeout_s) for p in tried]
    outcomes = sandbox.run_all([*right, *empty])
    own = {p.problem_id: o for p, o in zip(solved, outcomes, strict=False)}
    wrong: dict[str, str] = {}
    for p, nothing in zip(tried, outcomes[len(solved) :], strict=True):
        solution = own.get(p.problem_id)
        if solution is not None and solution.status not in (PASS, NOT_JUDGED):
            wrong[p.problem_id] = f"its own solution is {solution.status} ({solution.detail})"
        elif nothing.status in (PASS, INFRA):
            wrong[p.problem_id] = f"an empty answer is {nothing.status}"
    _stop_at_fatal(problems, wrong)
    kept = tuple(p for p in problems if p.problem_id not in wrong)
    limits_s = {
        p.problem_id: max(timeout_s, _TIMES_SOLUTION * own[p.problem_id].seconds)
        if p.problem_id in own
        else timeout_s
        for p in kept
    }
    left_out = tuple(f"{name}: {why}" for name, why in wrong.items())
    return TestedProblems(sandbox, kept, limits_s, timeout_s, left_out)


def _stop_at_fatal(problems: Sequence[Problem], wrong: Mapping[str, str]) -> None:
    fatal = [
        p
        for p in problems
        if p.problem_id in wrong and set_of(p.suite).on_failure != OnFailure.LEAVE_OUT_PROBLEM
    ]
    if not fatal:
        return
    suite = fatal[0].suite
    failures = [f"{p.problem_id}: {wrong[p.problem_id]}" for p in fatal if p.suite == suite]
    problem_set = set_of(suite)
    raise SelfTestError(
        f"{problem_set.title or f'set {suite}'}'s self-test failed on {len(failures)} of "
        f"{sum(p.suite == suite for p in problems)} problems: {'; '.join(failures[:3])}",
        problem_set.remedy,
        suite,
    )
