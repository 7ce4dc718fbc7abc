"""The user's own sets: read line by line, wrong lines named, keyed by content."""

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tasks.core.cache.digest_cache import sha256
from tasks.core.errors import PipelineError
from tasks.core.settings.config import View, check
from tasks.evaluation import STAGE
from tasks.evaluation.problems import posing, programs, protocol, user_sets, user_tests

TEST = {"prompt": "Add a and b.", "entry_point": "add", "test": "assert add(1, 2) == 3"}
CODE = 'def add(a, b):\n    """ Add. """\n'


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows))
    return path


def view(path: Path, kind: str = "tests", **more: Any) -> View:
    own = {"name": "own", "path": str(path), "kind": kind, **more}
    return View(check({"evaluate": {"sets": [own]}}), STAGE.reads, STAGE.name)


def read(path: Path, kind: str = "tests", **more: Any) -> list[user_sets.SetLine]:
    return user_sets.read(view(path, kind, **more).evaluate.sets[0])


def test_tests_and_answers_are_read_under_the_names_that_such_files_use(tmp_path: Path) -> None:
    humaneval_like = {
        **TEST,
        "task_id": "T/1",
        "canonical_solution": "x",
        "test": "def check(c): 1",
    }
    mbpp_like = {**TEST, "test": None, "test_list": ["assert add(1, 1) == 2", "assert 1"]}
    lines = read(write(tmp_path / "t.jsonl", humaneval_like, "", mbpp_like))
    assert [line.name for line in lines] == ["own/T/1", "own/3"]
    assert lines[0].solution == "x"
    assert lines[1].tests == "assert add(1, 1) == 2\nassert 1"
    (line,) = read(write(tmp_path / "a.jsonl", {"prompt": "p", "answer": "a"}), "answers")
    assert (line.prompt, line.answer) == ("p", "a")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{", "not JSON"),
        ([1], "a list, not an object"),
        ({**TEST, "prompt": 3}, "prompt is a int, not a text"),
        ({**TEST, "prompt": " "}, "no field prompt"),
        ({"prompt": "p", "entry_point": "f"}, "no field test"),
        ({"prompt": "p", "test": "assert 1"}, "no field entry_point"),
        ({**TEST, "entry_point": "a b"}, "entry_point 'a b' is not a function name"),
        ({**TEST, "test": "assert ("}, "test is not Python"),
        ({**TEST, "id": "same"}, "line 1 has the same id"),
        ("[" * 100_000, "not readable JSON (nested too deeply)"),
        ({**TEST, "prompt": "half \ud83d"}, "prompt holds half of a character (\\ud83d)"),
        ({**TEST, "test": "assert '\udc00'"}, "test holds half of a character"),
        ({**TEST, "id": "\ud800"}, "id holds half of a character"),
        ({**TEST, "test": f"assert {'+'.join(['1'] * 20_000)}"}, "test can't be compiled"),
        ('{"prompt": 1' + "0" * 5000 + "}", "not readable JSON"),
        ({**TEST, "prompt": "a\0b"}, "prompt contains a NUL byte"),
    ],
)
def test_a_wrong_line_is_named_by_file_and_number(tmp_path: Path, row: Any, problem: str) -> None:
    path = write(tmp_path / "own.jsonl", {**TEST, "id": "same"}, row)
    with pytest.raises(PipelineError) as caught:
        user_sets.sources(view(path), sha256)
    assert caught.value.problem.startswith(f"{path}, line 2: {problem}")
    assert caught.value.remedy.endswith(".")


def test_a_line_separator_within_a_text_ends_no_line(tmp_path: Path) -> None:
    row = json.dumps({"prompt": "a\u2028b\x85c", "answer": "d"}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_text(f"{row}\r\n{row}\r\n", encoding="utf-8")
    assert [line.prompt for line in read(tmp_path / "a.jsonl", "answers")] == ["a\u2028b\x85c"] * 2


def test_an_answer_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="line 1: no field answer"):
        read(write(tmp_path / "a.jsonl", TEST), "answers")


def test_a_file_that_is_not_there_or_empty_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"set own can't be read from .*No such file"):
        user_sets.sources(view(tmp_path / "none.jsonl"), sha256)
    with pytest.raises(PipelineError, match="0 lines"):
        user_sets.sources(view(write(tmp_path / "empty.jsonl", "")), sha256)


def test_a_set_is_keyed_by_its_content(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", TEST)
    before = user_sets.sources(view(path), sha256)
    write(path, TEST, {**TEST, "id": "two"})
    assert list(before) == ["own"]
    assert user_sets.sources(view(path), sha256) != before


def test_a_cap_takes_lines_from_the_top(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", TEST, TEST, TEST)
    assert [line.name for line in read(path, max_problems=2)] == ["own/1", "own/2"]


def test_names_of_sets_are_told_apart() -> None:
    one = {"name": "a", "path": "x"}
    for rows in ([one, one], [{**one, "name": "humaneval"}]):
        with pytest.raises(PipelineError, match="two sets are called"):
            check({"evaluate": {"sets": rows}})


def problem(prompt: str, **more: str) -> protocol.Problem:
    line = user_sets.SetLine("own/1", prompt, entry="add", tests="assert add(1, 2) == 3", **more)
    return user_tests.from_lines("own", [line])[0]


def test_code_up_to_a_docstring_is_posed_like_humaneval() -> None:
    found = problem(CODE, solution="    return a + b\n")
    assert not found.in_words
    assert posing.pose(found, "completion", "instruction") == CODE.rstrip()
    assert "add(a, b)" in programs.program_of(found, "completion", "\n    return a + b")


@pytest.mark.parametrize("words", ["Add a and b.", "x = 1", "def add(a, b):\n    return a\n"])
def test_anything_else_is_words_whose_answer_is_the_whole_program(words: str) -> None:
    found = problem(words)
    assert found.in_words
    assert posing.styles_of(found, ("completion", "prompt")) == ("prompt",)
    assert words in posing.pose(found, "prompt", "instruction")
    answer = "```python\nimport math\n\ndef add(a, b):\n    return a + b\n\nprint(add(1, 2))\n```"
    program = programs.program_of(found, "prompt", answer)
    assert "import math" in program
    assert "return a + b" in program
    assert "print" not in program


def test_a_pipe_is_refused_instead_of_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PipelineError, match=r"can't be read from .*pipe: not a file"):
        read(tmp_path / "pipe")


def test_the_version_of_a_package_that_a_set_names_is_in_the_key(tmp_path: Path) -> None:
    config = view(write(tmp_path / "t.jsonl", TEST), packages=["numpy"])
    found = user_sets.sources(config, sha256)
    assert found["own: numpy"] == metadata.version("numpy")


def test_a_package_that_is_not_installed_is_an_error_of_the_plan(tmp_path: Path) -> None:
    config = view(write(tmp_path / "t.jsonl", TEST), packages=["no-such-package"])
    with pytest.raises(PipelineError, match="package no-such-package is not installed"):
        user_sets.sources(config, sha256)
