"""Python, and notebooks with Python in them."""

import re
import sys
from collections.abc import Iterator

from tasks.core.languages.imports import beside
from tasks.core.languages.protocol import DoctestCandidate, Language
from tasks.core.languages.python import notebook, source

# a pattern and not a tree: the trees are made later, in other processes
IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#;]+)|"
    r"import[ \t]+([^\n#;]+))",
    re.MULTILINE,
)
ENDINGS = (".py", "/__init__.py")

TEST_NAMES = ("test_*", "*_test.py", "conftest.py")
TEST_FOLDERS = frozenset({"test", "tests", "testing", "idle_test"})


def _doctest_candidates(text: str) -> Iterator[DoctestCandidate | int]:
    # imported here: `doctest` takes longer to import than the rest of what a plan needs from here
    from tasks.core.languages.python.doctests import candidates

    return candidates(text)


def _imports(text: str, path: str) -> Iterator[tuple[str, ...]]:
    """`from .a import b`, which may be a module or a name inside of one, and `import a.b`."""
    for dots, module, names, plain in IMPORT.findall(text):
        stem = module.replace(".", "/")
        if dots:
            places = [beside(path, f"{'../' * (len(dots) - 1)}{stem}").rstrip("/")]
        else:
            places = _places(stem, path)
        for name in _names(names):
            files = [f"{place}{more}" for place in places for more in (f"/{name}", "")]
            yield tuple(f"{file}{end}" for file in files for end in ENDINGS if file)
        for name in _names(plain):
            files = _places(name.replace(".", "/"), path)
            yield tuple(f"{file}{end}" for file in files for end in ENDINGS)


def _places(stem: str, path: str) -> list[str]:
    """Where an absolute import may lead: below any folder, or below the root where that is the
    package itself. Any folder may hold a file of the name of a module of the standard library, so a
    single name is beside the file or at the top."""
    if "/" in stem:
        return [stem, f"/{stem.partition('/')[2]}"]
    return [beside(path, stem), f"/{stem}", f"/src/{stem}"]


def _names(names: str) -> Iterator[str]:
    """The names of an import without those that they get."""
    for part in names.strip("()").split(","):
        if words := part.split():
            yield words[0]


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
    imports=_imports,
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
    imports=_imports,
)
