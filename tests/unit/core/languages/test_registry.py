import ast
from pathlib import Path

import pytest

import tasks.ingestion
from tasks.core.languages.registry import (
    EXTENSIONS,
    LANGUAGES,
    is_test,
    language_of,
    without_extension,
)

PACKAGE = Path(tasks.ingestion.__file__).parent


def test_every_extension_belongs_to_one_language() -> None:
    assert len(EXTENSIONS) == len(set(EXTENSIONS))
    assert [language_of(f"a/b{ending}") for ending in EXTENSIONS] == [
        language for language in LANGUAGES for _ in language.extensions
    ]


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.py", "a"), ("a.tar.py", "a.tar"), ("folder", "folder"), ("a.txt", "a.txt")],
)
def test_only_the_extension_of_a_language_is_removed(name: str, stem: str) -> None:
    assert without_extension(name) == stem


def test_only_languages_parse_source_text() -> None:
    users = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if {"ast", "tokenize"} & set(names):
                users.add(path.parent.name)
    assert users == {"languages"}


def test_tests_are_known_by_their_folder_or_their_name() -> None:
    assert not is_test("pkg/contest.py") and is_test("pkg/tests/a.py") and is_test("a_test.py")
