"""MBPP and EvalPlus in their own formats: posed, tested, and kept out of the training data."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import PipelineError
from tasks.core.sandbox import PASS, WRONG, Limits, Sandbox
from tasks.core.settings.evaluate import EvaluationSet
from tasks.core.settings.filter import DecontaminationSettings
from tasks.evaluation.problems import grading, user_sets, user_tests
from tasks.evaluation.problems.protocol import Problem
from tasks.filtering import benchmarks

MBPP = {
    "text": "Write a function to double a number.",
    "code": "def helper(n):\n    return n\n\ndef twice(n):\n    return 2 * helper(n)",
    "task_id": 7,
    "test_setup_code": "base = 1",
    "test_list": ["assert twice(2) == 4", "assert twice(base) == 2"],
    "challenge_test_list": ["assert twice(-3) == -6"],
}
SANITIZED = {
    "source_file": "x",
    "task_id": 8,
    "prompt": "Write a function to double a number.",
    "code": "def twice(n):\n    return 2 * n",
    "test_imports": ["import math"],
    "test_list": ["assert math.floor(twice(2.5)) == 5"],
}
HUMANEVAL_PLUS = {
    "task_id": "HumanEval/900",
    "prompt": 'def halves(numbers):\n    """ Halve all numbers. """\n',
    "entry_point": "halves",
    "canonical_solution": "    return [n / 2 for n in numbers]\n",
    "base_input": [[[1, 2]]],
    "plus_input": [[[]], [[3, 1e9]]],
    "atol": 0,
    "contract": "",
}
MBPP_PLUS = {
    "task_id": "Mbpp/901",
    "prompt": '"""\nWrite a function to double a number.\nassert twice(2) == 4\n"""\n',
    "entry_point": "twice",
    "canonical_solution": "\ndef twice(n):\n    return 2 * n\n",
    "base_input": [[2]],
    "plus_input": [[0], [-4]],
    "atol": 0,
}
ALL = (MBPP, SANITIZED, HUMANEVAL_PLUS, MBPP_PLUS)


def written(folder: Path, *rows: Any) -> EvaluationSet:
    path = folder / "set.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return EvaluationSet(name="own", path=str(path))


def problems(folder: Path, *rows: Any) -> list[Problem]:
    return user_tests.from_lines("own", user_sets.read(written(folder, *rows)))


def test_an_mbpp_task_is_posed_in_words_with_the_test_that_names_the_function(tmp_path: Path):
    (task,) = problems(tmp_path, MBPP)
    assert (task.problem_id, task.entry, task.in_words) == ("own/MBPP/7", "twice", True)
    assert task.prompt.startswith("Write a function to double a number.\n")
    assert task.prompt.endswith("\n\nassert twice(2) == 4")
    assert task.checks.count("assert") == 3


def test_humaneval_plus_is_posed_as_code_and_mbpp_plus_in_words(tmp_path: Path):
    assert [p.in_words for p in problems(tmp_path, HUMANEVAL_PLUS, MBPP_PLUS)] == [False, True]


def test_solutions_pass_and_wrong_answers_fail_in_the_sandbox(tmp_path: Path):
    sandbox = Sandbox.best("rlimits", Limits(), 2)
    own = problems(tmp_path, *ALL)
    right = [grading.job(p, p.whole_solution, 20) for p in own]
    wrong = {
        "twice": "def twice(n):\n    return 4\n",
        "halves": "def halves(numbers):\n    return [n // 2 for n in numbers]\n",
    }
    false = [grading.job(p, wrong[p.entry], 20) for p in own]
    outcomes = [o.status for o in sandbox.run_all([*right, *false])]
    assert outcomes == [PASS] * len(own) + [WRONG] * len(own)


def test_a_line_that_names_no_function_is_reported_with_its_number(tmp_path: Path):
    broken = {**MBPP, "test_list": ["assert other(2) == 4"]}
    with pytest.raises(PipelineError, match="line 2: no field entry_point"):
        problems(tmp_path, MBPP, broken)


def test_the_filter_searches_for_the_same_problems(tmp_path: Path):
    settings = DecontaminationSettings(benchmarks=())
    (found,) = benchmarks.load(settings, [written(tmp_path, *ALL)])
    assert len(found.problems) == len(ALL)
    assert all(p.texts and p.programs for p in found.problems)
    assert all("def check" in p.tests for p in found.problems)
