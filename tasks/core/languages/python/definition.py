"""Python, and notebooks with Python in them."""

import sys
from collections.abc import Iterator

from tasks.core.languages.protocol import DoctestCandidate, Language
from tasks.core.languages.python import notebook, source

TEST_NAMES = ("test_*", "*_test.py", "conftest.py")
TEST_FOLDERS = frozenset({"test", "tests", "testing", "idle_test"})


def _doctest_candidates(text: str) -> Iterator[DoctestCandidate | int]:
    # imported here: `doctest` takes longer to import than the rest of what a plan needs from here
    from tasks.core.languages.python.doctests import candidates

    return candidates(text)


PYTHON = Language(
    name="python",
    title="Python",
    extensions=(".py",),
    parser=("python",),
    line_comment="#",
    decode=source.decode,
    parse=source.parse_source,
    parse_fragment=source.parse_source,
    shebangs=("python", f"python{sys.version_info.major}"),
    test_names=TEST_NAMES,
    test_folders=TEST_FOLDERS,
    doctest_candidates=_doctest_candidates,
)
# a text in Python once it is decoded, so its rows are those of Python
NOTEBOOK = Language(
    name="python",
    title="notebook",
    extensions=(".ipynb",),
    parser=("python",),
    line_comment="#",
    decode=notebook.decode,
    parse=source.parse_source,
    parse_fragment=source.parse_source,
    test_names=("test_*",),
    test_folders=TEST_FOLDERS,
)
