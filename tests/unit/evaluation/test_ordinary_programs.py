"""Correct programs as a team's tests contain them: judged right, or reported as not judged."""

from typing import Literal, NamedTuple

import pytest

from tasks.core.sandbox import BUBBLEWRAP, NOT_JUDGED, PASS, UNSHARE, WRONG, Sandbox
from tasks.evaluation.metrics import summary
from tasks.evaluation.problems import grading, humaneval, programs, user_tests
from tasks.evaluation.problems.grading import TestedProblems
from tasks.evaluation.problems.user_sets import SetLine
from tasks.evaluation.results import COMPLETION, PROMPT, Attempt, Evaluation, ProblemResult


class Ordinary(NamedTuple):
    """A correct program with its test; `wrong` does not pass it."""

    kind: str
    entry: str
    program: str
    test: str
    wrong: str = ""
    packages: tuple[str, ...] = ()
    isolated: bool = False  # auto keeps it outside of the answer's process


def o(kind: str, entry: str, program: str, test: str, **more: object) -> Ordinary:
    return Ordinary(kind, entry, program, test, **more)  # type: ignore[arg-type]


PROGRAMS = [
    o("sum", "add", "def add(a, b): return a + b", "assert add(1, 2) == 3", isolated=True),
    o("sorted in place", "order", "def order(x): x.sort()",
      "x = [3, 1]\norder(x)\nassert x == [1, 3]", isolated=True),
    o("dict in place", "count", "def count(d, w): d[w] = d.get(w, 0) + 1",
      "d = {}\ncount(d, 'a')\ncount(d, 'a')\nassert d == {'a': 2}", isolated=True),
    o("nested in place", "grow", "def grow(m):\n    for row in m: row.append(0)",
      "row = [1]\nm = [row, [2]]\ngrow(m)\nassert m == [[1, 0], [2, 0]] and row == [1, 0]",
      isolated=True),
    o("shifted in place", "shift", "def shift(m): return m.pop(0)",
      "a = [1]\nm = [a, [2]]\nassert shift(m) is a\nassert m == [[2]] and a == [1]",
      isolated=True),
    o("set in place", "clean", "def clean(s): s.discard(1)",
      "s = {1, 2}\nclean(s)\nassert s == {2}", isolated=True),
    o("deque in place", "turn", "def turn(d): d.rotate(1)",
      "from collections import deque\nd = deque([1, 2, 3])\nturn(d)\nassert d == deque([3, 1, 2])",
      isolated=True),
    o("the same list", "same", "def same(x): return x", "x = [1]\nassert same(x) is x",
      isolated=True),
    o("generator", "evens", "def evens(n): yield from range(0, n, 2)",
      "assert list(evens(5)) == [0, 2, 4]", isolated=True),
    o("endless generator", "ones", "def ones():\n    while True: yield 1",
      "g = ones()\nassert [next(g), next(g)] == [1, 1]\nassert g.gi_frame"),
    o("function as argument", "twice", "def twice(f, x): return f(f(x))",
      "assert twice(lambda x: x + 1, 1) == 3"),
    o("built-in as argument", "apply", "def apply(f, x): return f(x)",
      "assert apply(len, 'abc') == 3"),
    o("named function as argument", "each", "def each(f, xs): return [f(x) for x in xs]",
      "def double(x): return 2 * x\nassert each(double, [1, 2]) == [2, 4]"),
    o("function as result", "adder", "def adder(n): return lambda x: x + n",
      "assert adder(2)(3) == 5"),
    o("closure", "counter",
      "def counter():\n    n = 0\n    def next_one():\n        nonlocal n\n        n += 1\n"
      "        return n\n    return next_one",
      "c = counter()\nassert (c(), c()) == (1, 2)"),
    o("decorator", "cached",
      "def cached(f):\n    kept = {}\n    def g(x):\n        if x not in kept: kept[x] = f(x)\n"
      "        return kept[x]\n    return g",
      "calls = []\n@cached\ndef f(x):\n    calls.append(x)\n    return x\nf(1)\nf(1)\n"
      "assert calls == [1]"),
    o("Decimal", "cents", "from decimal import Decimal\ndef cents(x): return Decimal(x) / 100",
      "from decimal import Decimal\nassert cents(250) == Decimal('2.5')", isolated=True),
    o("Fraction", "half", "from fractions import Fraction\ndef half(x): return Fraction(x, 2)",
      "from fractions import Fraction\nassert half(3) == Fraction(3, 2)", isolated=True),
    o("date", "tomorrow",
      "from datetime import timedelta\ndef tomorrow(d): return d + timedelta(days=1)",
      "from datetime import date\nassert tomorrow(date(2024, 2, 28)) == date(2024, 2, 29)",
      isolated=True),
    o("datetime and zone", "utc",
      "from datetime import timezone\ndef utc(t): return t.replace(tzinfo=timezone.utc)",
      "from datetime import datetime, timezone\n"
      "assert utc(datetime(2024, 1, 1)) == datetime(2024, 1, 1, tzinfo=timezone.utc)",
      isolated=True),
    o("path", "sibling", "def sibling(p): return p.with_suffix('.md')",
      "from pathlib import Path\nassert sibling(Path('a/b.txt')) == Path('a/b.md')", isolated=True),
    o("dataclass result", "origin",
      "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: 'int'\n    y: int = 0\n"
      "def origin(): return Point(0)",
      "assert origin() == Point(0, 0)\nassert origin().x == 0"),
    o("dataclass argument", "norm",
      "from dataclasses import dataclass\n@dataclass\nclass V:\n    x: int\n"
      "def norm(v): return abs(v.x)",
      "assert norm(V(-2)) == 2"),
    o("named tuple", "pair",
      "from collections import namedtuple\nPair = namedtuple('Pair', 'a b')\n"
      "def pair(): return Pair(1, 2)",
      "assert pair().a == 1"),
    o("enum", "next_color",
      "import enum\nclass Color(enum.Enum):\n    RED = 1\n    BLUE = 2\n"
      "def next_color(c): return Color.BLUE",
      "assert next_color(Color.RED) is Color.BLUE"),
    o("class as entry", "Stack",
      "class Stack:\n    def __init__(self): self.items = []\n"
      "    def push(self, x): self.items.append(x)\n    def pop(self): return self.items.pop()",
      "s = Stack()\ns.push(1)\nassert s.pop() == 1"),
    o("iterator class", "Down",
      "class Down:\n    def __init__(self, n): self.n = n\n    def __iter__(self): return self\n"
      "    def __next__(self):\n        if self.n == 0: raise StopIteration\n"
      "        self.n -= 1\n        return self.n",
      "assert list(Down(2)) == [1, 0]"),
    o("context manager", "quiet",
      "import contextlib\n@contextlib.contextmanager\ndef quiet():\n    try: yield\n"
      "    except ValueError: pass",
      "with quiet():\n    raise ValueError"),
    o("custom exception", "check_age",
      "class AgeError(ValueError): pass\ndef check_age(n):\n    if n < 0: raise AgeError(n)",
      "try:\n    check_age(-1)\nexcept AgeError as e:\n    assert e.args == (-1,)\nelse:\n"
      "    assert False"),
    o("custom exception by its base", "check_size",
      "class SizeError(ValueError): pass\ndef check_size(n):\n    if n < 0: raise SizeError(n)",
      "try:\n    check_size(-1)\nexcept ValueError:\n    pass\nelse:\n    assert False",
      isolated=True),
    o("text of an exception", "lookup", "def lookup(d, k): return d[k]",
      "try:\n    lookup({}, 'k')\nexcept KeyError as e:\n    assert str(e) == \"'k'\"\n"
      "else:\n    assert False"),
    o("printed output", "hello", "def hello(): print('hello')",
      "import contextlib, io\nout = io.StringIO()\nwith contextlib.redirect_stdout(out): hello()\n"
      "assert out.getvalue() == 'hello\\n'"),
    o("helper of the answer", "area", "PI = 3\ndef square(x): return x * x\n"
      "def area(r): return PI * square(r)", "assert area(2) == PI * square(2)"),
    o("tests as functions", "neg", "def neg(x): return -x",
      "def test_one():\n    assert neg(1) == -1\n\ndef test_zero():\n    assert neg(0) == 0",
      isolated=True),
    o("numpy", "mean", "import numpy as np\ndef mean(x): return np.mean(x, axis=0)",
      "import numpy as np\nassert np.allclose(mean(np.array([[1, 2], [3, 4]])), [2, 3])",
      packages=("numpy",)),
    o("table filled by a loop", "fib",
      "fibs = [0, 1]\nfor _ in range(50):\n    fibs.append(fibs[-1] + fibs[-2])\n"
      "def fib(n): return fibs[n]", "assert fib(10) == 55", isolated=True),
    o("import in a try", "root",
      "try:\n    from math import isqrt as root_of\nexcept ImportError:\n    root_of = None\n"
      "def root(n): return root_of(n)", "assert root(9) == 3", isolated=True),
]  # fmt: skip
by_kind = pytest.mark.parametrize("ordinary", PROGRAMS, ids=[p.kind for p in PROGRAMS])
Mode = Literal["auto", "isolated", "together"]


@pytest.fixture(scope="module", params=[BUBBLEWRAP, UNSHARE])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    box = Sandbox(request.param)
    if (reason := box.defect()) is not None:
        pytest.skip(f"{request.param} does not work here: {reason}")
    return box


def status(box: Sandbox, ordinary: Ordinary, mode: Mode, answer: str = "") -> str:
    line = SetLine("own/1", "Write it.", entry=ordinary.entry, tests=ordinary.test)
    (problem,) = user_tests.from_lines("own", [line], mode, ordinary.packages)
    attempts = (Attempt(answer or ordinary.program, 3, True),)
    result = ProblemResult("own", "own/1", PROMPT, "", attempts, attempts)
    (judged,) = grading.grade(TestedProblems(box, (problem,), {"own/1": 30.0}), [result])
    return judged.base[0].outcome


def test_the_table_has_the_kinds_of_programs_that_teams_test() -> None:
    assert len(PROGRAMS) >= 36


@by_kind
def test_a_correct_program_passes(sandbox: Sandbox, ordinary: Ordinary) -> None:
    assert status(sandbox, ordinary, "auto") == PASS


@by_kind
def test_isolated_a_correct_program_passes_or_is_not_judged(ordinary: Ordinary) -> None:
    expected = PASS if ordinary.isolated else NOT_JUDGED
    assert status(Sandbox.best(UNSHARE), ordinary, "isolated") == expected


@by_kind
def test_a_program_that_does_nothing_is_not_right(ordinary: Ordinary) -> None:
    if ordinary.kind in ("the same list", "shifted in place"):
        answer = f"def {ordinary.entry}(*a): return None"
    else:
        answer = f"def {ordinary.entry}(*a, **k): return 'nothing'"
    if ordinary.kind != "context manager":
        assert status(Sandbox.best(UNSHARE), ordinary, "auto", answer) not in (PASS, NOT_JUDGED)


def test_a_test_that_runs_together_is_wrong_where_its_assert_fails(sandbox: Sandbox) -> None:
    ordinary = next(p for p in PROGRAMS if p.kind == "function as argument")
    assert status(sandbox, ordinary, "auto", "def twice(f, x): return 0") == WRONG


def test_an_early_exit_is_no_pass_of_a_test_that_runs_together(sandbox: Sandbox) -> None:
    ordinary = next(p for p in PROGRAMS if p.kind == "function as argument")
    for answer in ("import os\nos._exit(0)", "import sys\ndef twice(f, x): sys.exit(0)"):
        assert status(sandbox, ordinary, "together", answer) not in (PASS, "infra")


def test_loops_of_examples_after_the_function_are_dropped() -> None:
    source = (
        "def f(x):\n    result = x\n    return result\n\nfor x in [1]:\n    result = f(x)\n    "
    )
    assert "for x in" not in programs.trim(source + "assert result == 2\n", "f")


@pytest.mark.parametrize("number", [13, 55, 106])
def test_humaneval_solutions_with_a_loop_or_try_at_top_level_pass(number: int) -> None:
    answers = {
        13: "\n    return shared(a, b)\n\ntry:\n    from math import gcd as shared\n"
        "except ImportError:\n    shared = None\n",
        55: "\n    return table[n]\n\ntable = [0, 1]\nfor i in range(2, 100):\n"
        "    table.append(table[i - 1] + table[i - 2])\n",
        106: "\n    numbers = range(1, n + 1)\n"
        "    return [sum(range(i + 1)) if i % 2 else fact[i] for i in numbers]\n\n"
        "fact = {0: 1}\nfor i in range(1, 50):\n    fact[i] = fact[i - 1] * i\n",
    }
    (problem,) = (p for p in humaneval.load() if p.problem_id == f"HumanEval/{number}")
    program = programs.program_of(problem, COMPLETION, answers[number])
    assert Sandbox.best(UNSHARE).run(grading.job(problem, program, 30.0)).status == PASS


def test_the_report_counts_where_the_tests_of_a_set_run() -> None:
    chosen = [p for p in PROGRAMS if p.kind in ("sum", "Decimal", "function as argument")]
    lines = [SetLine(f"own/{p.kind}", "Do.", entry=p.entry, tests=p.test) for p in chosen]
    modes = {m: grading.modes(user_tests.from_lines("own", lines, m)) for m in ("auto", "isolated")}
    assert modes["auto"] == {"tests of own": "2 isolated, 1 together"}
    assert modes["isolated"] == {"tests of own": "2 isolated, 1 not judged"}


def test_an_answer_that_is_not_judged_is_in_no_share_and_counted() -> None:
    attempts = [(Attempt("x", 1, True, outcome),) for outcome in (NOT_JUDGED, WRONG, PASS)]
    results = [
        ProblemResult("own", f"own/{at}", PROMPT, "", tried, tried)
        for at, tried in enumerate(attempts)
    ]
    found = summary.metrics(Evaluation((), tuple(results)))["problems"]["own (prompt)"]
    assert (found["problems"], found["infra"], found["not_judged"]) == (3, 0, 1)
    assert found["base"]["pass@1"] == 0.5
