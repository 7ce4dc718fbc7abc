"""The self-test, and outcomes of attempts, with a sandbox that returns prepared outcomes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest

from tasks.core.errors import PipelineError
from tasks.core.sandbox import (
    EXCEPTION,
    INFRA,
    PASS,
    RLIMITS,
    TIMEOUT,
    WRONG,
    Job,
    Outcome,
    Sandbox,
)
from tasks.evaluation.problems import grading
from tasks.evaluation.problems.grading import TestedProblems
from tasks.evaluation.problems.protocol import Problem
from tasks.evaluation.problems.self_test import self_test
from tasks.evaluation.results import Attempt, ProblemResult

PROMPT = 'def one():\n    """ One. """\n'
PROBLEM = Problem("Toy/0", PROMPT, "one", "    return 1\n", "def check(c):\n    assert c() == 1\n")
RIGHT, EMPTY = PROMPT + PROBLEM.solution, PROMPT


class Told(Sandbox):
    """Answers as told, and remembers what it was asked."""

    def __init__(self, outcome: Callable[[Job], Outcome]) -> None:
        super().__init__(RLIMITS)
        self.outcome, self.jobs = outcome, list[Job]()

    def run_all(self, jobs: Sequence[Job], done: Callable[[int], None] = print) -> list[Outcome]:
        self.jobs += jobs
        return [self.outcome(job) for job in jobs]


def told(right: str = PASS, empty: str = WRONG, seconds: float = 0.0) -> Told:
    return Told(lambda job: Outcome(right if job.program == RIGHT else empty, "why", seconds))


def results(base: str, tuned: str, style: str = "completion") -> list[ProblemResult]:
    attempts = [(Attempt(text, 3, True),) for text in (base, tuned)]
    return [ProblemResult("humaneval", "Toy/0", style, PROMPT, *attempts)]


def test_the_self_test_fails_where_a_right_solution_does() -> None:
    with pytest.raises(
        PipelineError,
        match="on 1 of 1 problems: Toy/0: its own solution is wrong",
    ):
        self_test(told(right=WRONG), [PROBLEM], 4.0)


def test_a_user_s_own_wrong_solution_is_named_with_its_set() -> None:
    own = replace(PROBLEM, suite="mine")
    with pytest.raises(PipelineError, match=r"set mine's self-test failed on 1 of 1 problems"):
        self_test(told(right=WRONG), [own], 4.0)


def test_a_problem_of_a_droppable_suite_is_left_out_and_named() -> None:
    own = replace(PROBLEM, suite="held-out")
    bench = self_test(told(right=WRONG), [own], 4.0)
    assert bench.problems == ()
    assert bench.left_out == ("Toy/0: its own solution is wrong (why)",)


def test_without_a_solution_only_the_empty_answer_is_tried() -> None:
    box = told()
    bench = self_test(box, [replace(PROBLEM, solution="")], 4.0)
    assert [job.program for job in box.jobs] == [EMPTY]
    assert bench.limits_s == {"Toy/0": 4.0}


def test_plain_asserts_are_checks_too() -> None:
    words = replace(PROBLEM, prompt="Give 1.", checks="assert one() == 1", in_words=True)
    made = grading.job(words, "def one(): return 1", 1.0)
    assert (made.setup, made.checks.strip()) == ("", "assert one() == 1")


def test_the_self_test_fails_where_an_empty_answer_passes() -> None:
    with pytest.raises(PipelineError, match="an empty answer is pass"):
        self_test(told(empty=PASS), [PROBLEM], 4.0)


def test_the_self_test_fails_where_the_sandbox_does() -> None:
    with pytest.raises(PipelineError, match="infra"):
        self_test(told(right=INFRA, empty=INFRA), [PROBLEM], 4.0)


def test_a_problem_gets_four_times_its_own_solution_s_time() -> None:
    assert self_test(told(seconds=2.5), [PROBLEM], 4.0).limits_s == {"Toy/0": 10.0}


def test_a_quick_problem_gets_the_least_time() -> None:
    assert self_test(told(seconds=0.1), [PROBLEM], 4.0).limits_s == {"Toy/0": 4.0}


def test_every_attempt_gets_its_outcome() -> None:
    box = Told(lambda job: Outcome(PASS if "return 1" in job.program else EXCEPTION, "why"))
    bench = TestedProblems(box, (PROBLEM,), {"Toy/0": 4.0})
    (judged,) = grading.grade(bench, results("\n    oops()", "\n    return 1"))
    assert (judged.base[0].outcome, judged.base[0].detail) == (EXCEPTION, "why")
    assert judged.tuned[0].outcome == PASS
    assert judged.tuned[0].text == "\n    return 1"


@pytest.mark.parametrize(("status", "runs"), [(INFRA, 2), (TIMEOUT, 2), (EXCEPTION, 1)])
def test_outcome_that_depends_on_the_machine_is_not_cached(status: str, runs: int) -> None:
    class Kept(dict[str, list[object]]):
        def get(self, keys: Iterable[str]) -> dict[str, list[object]]:  # type: ignore[override]
            return {key: self[key] for key in keys if key in self}

        put = dict.update

    box, cache = told(empty=status), Kept()
    for _ in range(2):
        bench = TestedProblems(box, (PROBLEM,), {"Toy/0": 4.0})
        grading.grade(bench, results("x", "x"), caches={"base": cache})  # type: ignore[dict-item]
    assert len(box.jobs) == runs


def test_equal_programs_run_once() -> None:
    box = told()
    bench = TestedProblems(box, (PROBLEM,), {"Toy/0": 4.0})
    grading.grade(bench, results("\n    return 1", "\n    return 1\n\nprint("))
    assert len(box.jobs) == 1


def test_the_time_limit_of_the_problem_is_used() -> None:
    box = told()
    grading.grade(TestedProblems(box, (PROBLEM,), {"Toy/0": 9.0}), results("", "x"))
    assert {job.timeout_s for job in box.jobs} == {9.0}


def test_in_a_real_sandbox_the_right_one_passes_and_the_empty_one_does_not() -> None:
    box = Sandbox(RLIMITS, workers=1)  # the text is ours, so no isolation is needed
    bench = self_test(box, [PROBLEM], 20.0)
    (judged,) = grading.grade(bench, results("", "\n    return 1"))
    assert (judged.base[0].outcome, judged.tuned[0].outcome) == (WRONG, PASS)
