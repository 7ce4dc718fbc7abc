import ast
import json
from typing import Any

import pytest

from tasks.core.languages.protocol import NotParsableError
from tasks.core.languages.python.notebook import decode


def notebook(*cells: tuple[str, str], **metadata: Any) -> bytes:
    listed = [
        {"cell_type": kind, "source": text.splitlines(True), "outputs": [{"text": ["42\n"]}]}
        for kind, text in cells
    ]
    return json.dumps({"cells": listed, "metadata": metadata, "nbformat": 4}).encode()


def test_code_is_joined_prose_is_a_comment_and_outputs_are_dropped() -> None:
    text = decode(notebook(("markdown", "# Sums\nAll."), ("code", "x = 1"), ("code", "y = 2")))
    assert text == "# # Sums\n# All.\n\nx = 1\n\ny = 2\n"


@pytest.mark.parametrize(
    "cell",
    [
        "%matplotlib inline\nx = 1",
        "!pip install a\nx = 1",
        "if x:\n    !ls",
        "files = !ls",
        "len?",
        "%%bash\nfor f in *; do echo $f; done",
        "%%time\nx = 1",
        "x = %timeit -o f()",
    ],
)
def test_commands_do_not_break_parsing(cell: str) -> None:
    text = decode(notebook(("code", cell)))
    ast.parse(text)
    assert cell.split(maxsplit=1)[0] in text


def test_code_that_looks_like_a_command_stays() -> None:
    cell = 'x = """\n%d\n"""\ny = 7\\\n% 2'
    assert decode(notebook(("code", cell))) == cell + "\n"


def test_notebooks_of_format_3_are_read() -> None:
    cells = [{"cell_type": "code", "input": ["x = 1"]}]
    assert decode(json.dumps({"worksheets": [{"cells": cells}]}).encode()) == "x = 1\n"


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"{", "not a notebook"),
        (b"[]", "no cells"),
        (notebook(("code", "x <- 1"), kernelspec={"language": "R"}), "a notebook in r"),
    ],
)
def test_what_is_no_notebook_in_python_is_refused(raw: bytes, problem: str) -> None:
    with pytest.raises(NotParsableError, match=problem):
        decode(raw)


def test_a_cell_that_is_no_python_is_a_comment_and_the_others_are_read() -> None:
    text = decode(notebook(("code", "cd .."), ("code", "x = 1"), ("markdown", "Done.")))
    assert text == "# cd ..\n\nx = 1\n\n# Done.\n"


def test_a_notebook_whose_cells_are_mostly_no_python_is_not_turned_into_comments() -> None:
    text = decode(notebook(("code", "print 1"), ("code", "print 2"), ("code", "x = 1")))
    assert text == "print 1\n\nprint 2\n\nx = 1\n"
