"""PHP."""

import re
from collections.abc import Iterator

from tasks.core.languages.imports import beside
from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_php

    return tree_sitter_php.language_php()


USE = re.compile(r"^use[ \t]+(?:function[ \t]+|const[ \t]+)?\\?([\w\\]+)", re.MULTILINE)
REQUIRE = re.compile(
    r"""\b(?:require|include)(?:_once)?\b[ \t(]*(?:__DIR__[ \t]*\.[ \t]*)?["']([^"'\n]+)["']"""
)


def _imports(text: str, path: str) -> Iterator[tuple[str, ...]]:
    """`use A\\B\\C;`, whose first parts may stand for a folder, and `require 'a.php'`."""
    for name in USE.findall(text):
        parts = name.split("\\")
        yield tuple(f"{'/'.join(parts[first:])}.php" for first in range(max(1, len(parts) - 1)))
    for name in REQUIRE.findall(text):
        yield beside(path, name.lstrip("/")), name.lstrip("./")


PHP = tree_sitter_language(
    name="php",
    title="PHP",
    extensions=(".php",),
    grammar=Grammar(
        package="tree-sitter-php",
        load=_load,
        functions=frozenset({"function_definition", "method_declaration"}),
        items=frozenset({"declaration_list", "enum_declaration_list", "compound_statement"}),
        wrappers=frozenset(
            # a helper is often defined where no function has its name yet
            {"namespace_definition", "if_statement", "else_clause"}
        ),
        containers=(
            *(("class_declaration", "name"), ("interface_declaration", "name")),
            *(("trait_declaration", "name"), ("enum_declaration", "name")),
        ),
        blocks=frozenset({"compound_statement"}),
        documentation=("/*", "//", "#"),
        fragments=("<?php\n{}", "<?php\nclass _X {\n{}\n}"),
    ),
    test_names=("*Test.php", "*Tests.php", "*TestCase.php"),
    test_folders=frozenset({"Tests", "Test", "spec"}),
    shebangs=("php",),
    imports=_imports,
)
