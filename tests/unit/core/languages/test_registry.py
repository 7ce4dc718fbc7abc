import ast
from pathlib import Path
from typing import get_args

import pytest

import tasks.ingestion
from tasks.core.languages.registry import (
    ALL,
    BY_NAME,
    headers_of,
    language_of,
    without_extension,
)
from tasks.core.settings.ingest import LanguageName

INGESTION = Path(tasks.ingestion.__file__).parent


def test_every_extension_belongs_to_one_language() -> None:
    listed = [ending for language in ALL for ending in language.extensions]
    assert len(listed) == len(set(listed))
    for language in ALL:
        assert all(language_of(f"a/b{ending}") is language for ending in language.extensions)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.py", "a"), ("a.tar.py", "a.tar"), ("folder", "folder"), ("a.txt", "a.txt")],
)
def test_only_the_extension_of_a_language_is_removed(name: str, stem: str) -> None:
    assert without_extension(name) == stem


@pytest.mark.parametrize(
    ("paths", "language"),
    [("a.h b.cc c.cpp d.c", "cpp"), ("a.h b.c c.cpp", "c"), ("a.h", "c"), ("a.h b.hpp", "cpp")],
)
def test_headers_have_the_language_of_most_files_beside_them(paths: str, language: str) -> None:
    headers = headers_of(paths.split())
    assert language_of("a.h", b"int f(void);\n", headers) is BY_NAME[language]


def test_ingestion_leaves_parsing_to_the_languages() -> None:
    users = set()
    for path in INGESTION.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if {"ast", "tokenize"} & set(names):
                users.add(path.parent.name)
    assert users == set()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pkg/contest.py", False),
        ("pkg/tests/a.py", True),
        ("a_test.py", True),
        ("src/latest.js", False),
        ("src/a.test.js", True),
        ("src/a.spec.ts", True),
        ("src/__tests__/a.tsx", True),
        ("m/m_test.go", True),
        ("src/test/java/A.java", True),
        ("src/main/java/MoneyTest.java", True),
        ("Shop.Tests/A.cs", True),
        ("spec/a_spec.rb", True),
        ("src/attest.c", False),
        ("src/setupTests.js", True),
        ("src/login.e2e.ts", True),
        ("app/login.e2e-spec.ts", True),
        ("types/index.test-d.ts", True),
        ("src/greatest.test.d/a.ts", False),
    ],
)
def test_tests_are_known_by_their_folder_or_their_name(path: str, expected: bool) -> None:
    language = language_of(path)
    assert language is not None and language.is_test(path) == expected


@pytest.mark.parametrize(
    ("path", "content", "name"),
    [
        ("bin/run", b"#!/usr/bin/env bash\n", "bash"),
        ("bin/run", b"#!/usr/bin/python3\n", "python"),
        ("bin/run", b"#!/usr/bin/env -S node --harmony\n", "javascript"),
        ("a.h", b"int f(void);\n", "c"),
        ("a.h", b"namespace a {\nclass B;\n}\n", "cpp"),
        ("A.JS", b"", "javascript"),
    ],
)
def test_content_tells_the_language_where_the_name_does_not(path, content, name) -> None:
    language = language_of(path, content)
    assert language is not None and language.name == name


def test_a_file_without_a_known_program_has_no_language() -> None:
    assert language_of("Makefile", b"all:\n") is None and language_of("a.txt") is None


def test_settings_name_every_language() -> None:
    assert list(get_args(LanguageName)) == list(dict.fromkeys(one.name for one in ALL))
