import ast
import textwrap

import pytest

from tasks.core.languages.protocol import RUNNER, DoctestCandidate
from tasks.core.languages.python.doctests import candidates
from tasks.core.languages.python.standalone import Module
from tasks.core.sandbox import PASS, Job, Sandbox


def text(source: str) -> str:
    return textwrap.dedent(source).strip() + "\n"


def one(source: str) -> DoctestCandidate:
    (found,) = candidates(text(source))
    assert isinstance(found, DoctestCandidate)
    return found


def failure_of(candidate: DoctestCandidate) -> str:
    """What the runner returns, in this process: the texts of these tests are trusted."""
    space: dict = {"__name__": "program"}
    exec(compile(candidate.program, "<program>", "exec"), space)
    return space[RUNNER]()


ADD = '''
    import math
    import os.path as way

    BASE = math.floor(1.5)
    OTHER = 5

    def _one(x):
        return x + BASE

    def add(a, b):
        """Add two numbers and one.

        Examples
        --------
        >>> add(1, 2)
        4
        >>> add(2, 2)
        5
        """
        return _one(a) + b
'''


def test_a_function_is_cut_out_with_just_what_it_needs() -> None:
    module = Module(ast.parse(text(ADD)), text(ADD))
    cut = module.cut(list(module.functions())[1], ())
    assert cut and cut.context == (
        "import math\nBASE = math.floor(1.5)\ndef _one(x):\n    return x + BASE"
    )


@pytest.mark.parametrize(
    "line", ["import numpy as math", "from . import math", "from numpy import *"]
)
def test_function_that_needs_more_than_the_standard_library_is_not_self_contained(
    line: str,
) -> None:
    (found,) = candidates(text(ADD).replace("import math", line))
    assert found == 10


def test_runner_returns_nothing_where_all_doctests_pass() -> None:
    assert failure_of(one(ADD)) == ""


def test_runner_returns_the_doctest_that_fails() -> None:
    assert failure_of(one(ADD.replace("        5", "        6"))) == "add(2, 2)\n gave 5\n"


@pytest.mark.parametrize(
    ("example", "passes"),
    [
        (">>> f(5) # doctest: +ELLIPSIS\n[0, ..., 4]", True),
        (">>> f(5)\n[0, ..., 4]", False),
        (">>> f(3) # doctest: +NORMALIZE_WHITESPACE\n[0,   1,\n 2]", True),
        (">>> f('x')\nTraceback (most recent call last):\n  ...\nTypeError: no number", True),
        (">>> f('x')\nTraceback (most recent call last):\n  ...\nTypeError: none", False),
        (">>> f('x')\n[]", False),
        (">>> f(3)\nTraceback (most recent call last):\n  ...\nTypeError: no number", False),
        (">>> x = f(2)\n>>> print(x[0]); x\n0\n[0, 1]", True),
        (">>> print(f(1), '\\\\n', sep='')\n[0]\n<BLANKLINE>", True),
        (">>> f(9) # doctest: +SKIP\nnothing\n>>> f(1)\n[0]", True),
        (">>> from own.package import f\n>>> f(1)\n[0]", True),
    ],
)
def test_the_runner_knows_what_doctest_knows(example: str, passes: bool) -> None:
    source = (
        'def f(n):\n    """Count.\n\n'
        + textwrap.indent(example, "    ")
        + '\n    """\n    if isinstance(n, str):\n        raise TypeError(\'no number\')\n'
        "    return list(range(n))\n"
    )
    assert (failure_of(one(source)) == "") == passes


def test_a_problem_shows_the_prose_and_hides_the_examples_and_the_answer() -> None:
    problem = one(ADD)
    assert problem.prompt == (
        "import math\nBASE = math.floor(1.5)\ndef _one(x):\n    return x + BASE\n\n\n"
        'def add(a, b):\n    """Add two numbers and one.\n    """\n'
    )
    assert problem.canonical_solution == "    return _one(a) + b\n"
    assert problem.test == (
        "def check(candidate):\n"
        "    space = {'add': candidate}\n"
        "    assert repr(eval('add(1, 2)', space)) == '4'\n"
        "    assert repr(eval('add(2, 2)', space)) == '5'\n"
    )


def test_a_printed_value_is_a_test_of_its_text() -> None:
    found = one(ADD.replace(">>> add(1, 2)", ">>> print(add(1, 2))"))
    assert "assert str(eval('add(1, 2)', space)) == '4'" in found.test


@pytest.mark.parametrize(
    "example",
    [
        "__import__('os').fork() or add(1, 2)",
        "add.__class__ and add(1, 2)",
        "add(1, 2) if ().__class__.__base__.__subclasses__() else 4",
        "eval('add(1, 2)')",
        "open('/tmp/x', 'w') and add(1, 2)",
        "[c for c in (1,) if getattr(c, 'real')] and add(1, 2)",
        "'{0.__init__}'.format(add) and add(1, 2)",
        "(i for i in [1]).gi_frame and add(1, 2)",
        "add.ask and add(1, 2)",
        "collections.abc.sys.exit() or add(1, 2)",
    ],
)
def test_an_example_that_does_more_than_compute_is_not_run_by_the_checker(example: str) -> None:
    source = ADD.replace(">>> add(2, 2)", ">>> add(2, 2)\n        5\n        >>> add(3, 2)")
    source = source.replace('        5\n        "', '        6\n        "')
    found = one(source.replace(">>> add(1, 2)", f">>> {example}"))
    assert "add(2, 2)" in found.test
    assert example not in found.test
    assert "add(1, 2)" not in found.test


@pytest.mark.parametrize("line", ["import os", "from os import fork", "import collections.abc"])
def test_the_checker_imports_no_module_that_leads_to_others(line: str) -> None:
    found = one(ADD.replace(">>> add(1, 2)", f">>> {line}\n        >>> add(1, 2)"))
    assert line not in found.test
    assert "add(1, 2)" in found.test


def test_variables_and_simple_imports_of_examples_are_kept() -> None:
    lines = ">>> from math import floor\n        >>> x = floor(1.5)\n        >>> add(x, 2)"
    found = one(ADD.replace(">>> add(1, 2)", lines))
    assert "exec('x = floor(1.5)\\n', space)" in found.test
    assert "eval('add(x, 2)', space)" in found.test


def test_one_example_alone_is_no_problem() -> None:
    assert one(ADD.replace(">>> add(2, 2)\n        5", "")).test == ""


def test_examples_that_use_a_helper_make_no_problem() -> None:
    assert one(ADD.replace(">>> add(1, 2)", ">>> add(_one(0), 2)")).test == ""


def test_a_problem_is_solved_by_its_solution_in_the_sandbox() -> None:
    problem = one(ADD)
    checks = f"{problem.test}\ncheck(add)"
    sandbox = Sandbox.best("rlimits", workers=1)
    bodies = (problem.canonical_solution, "    return a + b\n")
    outcomes = [sandbox.run(Job(problem.prompt + b, "add", checks, timeout_s=20)) for b in bodies]
    assert [outcome.status == PASS for outcome in outcomes] == [True, False]


DEEP_EXAMPLE = '''def f(x):
    """Say x.

    >>> print(f({0}))
    1
    >>> f(1)
    1
    """
    return x
'''


@pytest.mark.parametrize(
    "example", ["-" * 900 + "1", "-" * 50_000 + "1", "(" * 400 + "1" + ")" * 400]
)
def test_an_example_nested_too_deeply_is_not_a_candidate_and_affects_no_other(example: str) -> None:
    deep, other = candidates(DEEP_EXAMPLE.format(example) + text(ADD))
    assert deep == 1 and isinstance(other, DoctestCandidate)


def test_invalid_escapes_in_examples_emit_no_warning(recwarn) -> None:
    list(candidates(text(ADD).replace("add(1, 2)", "add(1, len('\\d'))")))
    assert not recwarn.list
