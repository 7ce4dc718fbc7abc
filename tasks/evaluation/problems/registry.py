"""All sources of problems with tests. To add one, add a file and a line here."""

from tasks.evaluation.problems.held_out import HELD_OUT_FUNCTIONS
from tasks.evaluation.problems.humaneval import HUMANEVAL
from tasks.evaluation.problems.protocol import ProblemSet
from tasks.evaluation.problems.user_tests import USER_TESTS

PROBLEM_SETS = (HUMANEVAL, HELD_OUT_FUNCTIONS, USER_TESTS)


def set_of(suite: str) -> ProblemSet:
    """The set that a suite belongs to; suites of other names are the user's."""
    return next((found for found in PROBLEM_SETS if found.suite == suite), USER_TESTS)
