import ast

import numpy as np
import pyarrow as pa
import pytest

from tasks.core.decontamination.execution_match import PASSED, candidates, find, make_job
from tasks.core.decontamination.problems import make_problem
from tasks.core.errors import PipelineError
from tasks.core.sandbox import Sandbox
from tasks.core.settings.config import check

PROBLEMS = (
    make_problem(
        "T/1",
        "def double(x):\n    '''Twice x.'''\n",
        "    return x * 2\n",
        "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate('a') == 'aa'\n",
        "double",
    ),
    make_problem(
        "T/2",
        "def third(x):\n    '''Third.'''\n",
        "    return x[2]\n",
        "def check(candidate):\n    assert candidate([1, 2, 3]) == 3\n",
        "third",
    ),
)


def names(text: str, *arities: int) -> list[str]:
    return [name for _, name, _ in candidates(text, arities)]


@pytest.mark.parametrize(
    ("text", "arity", "found"),
    [
        ("def f(a, b):\n    return a", 2, ["f"]),
        ("def f(a, b):\n    return a", 1, []),
        ("def f(a, b=1):\n    return a", 1, ["f"]),
        ("def f(self, a):\n    return a", 1, []),
        ("def f(a, *, b):\n    return a", 1, []),
        ("@cache\ndef f(a):\n    return a", 1, []),
        ("def f(a):\n    return helper(a)", 1, []),
        ("def helper(a):\n    return a\ndef f(a):\n    return helper(a)", 1, ["helper", "f"]),
        ("def f(a):\n    import os\n    return os", 1, ["f"]),
        ("def f(a)", 1, []),
    ],
)
def test_only_a_function_that_could_be_an_answer_is_run(
    text: str, arity: int, found: list[str]
) -> None:
    assert names(text, arity) == found


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return Sandbox.best("unshare", workers=1)
    except PipelineError as error:
        pytest.skip(error.problem)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("def f(x):\n    y = x\n    return y + y", "T/1"),
        ("def f(x):\n    return list(x)[-1]", "T/2"),
        ("def f(x):\n    return x", None),
        ("def f(x):\n    raise LookupError('no')", None),
    ],
)
def test_function_that_passes_a_problems_tests_is_reported_with_the_problem(
    sandbox: Sandbox, program: str, problem: str | None
) -> None:
    ast.parse(program)
    outcome = sandbox.run(make_job(program, "f", PROBLEMS, 4.0))
    _, passed, found = outcome.detail.partition(PASSED)
    assert (found if passed else None) == problem


def test_problems_after_one_that_never_ends_are_still_tried(sandbox: Sandbox) -> None:
    program = "def f(x):\n    while isinstance(x, int):\n        pass\n    return list(x)[-1]"
    # PROBLEMS[0] passes a number, on which the function never ends
    rows = pa.table({"row_id": ["a"], "output": [program]})
    settings = check(
        {"filter": {"decontamination": {"execution": True, "execution_timeout_s": 1.0}}}
    ).filter.decontamination
    hits = find([rows], np.array([True]), PROBLEMS, settings, 1)
    assert hits[0].problem_id == "T/2"
