"""C and C++."""

import re
from collections.abc import Iterator

from tasks.core.languages.imports import beside
from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language

PREPROCESSOR = frozenset(
    {
        *("preproc_if", "preproc_ifdef", "preproc_else", "preproc_elif", "preproc_elifdef"),
        *("linkage_specification", "declaration_list"),
    }
)
TEST_NAMES = ("test_*.*", "*_test.*", "*_tests.*", "*_unittest.*", "test.*", "tests.*", "*Test.*")
# macros are not expanded, so a few lines of a valid file may not parse
MAX_ERROR_SHARE = 0.05


def _load() -> object:
    import tree_sitter_c

    return tree_sitter_c.language()


def _load_cpp() -> object:
    import tree_sitter_cpp

    return tree_sitter_cpp.language()


INCLUDE = re.compile(r"""^[ \t]*#[ \t]*(?:include|import)[ \t]*["<]([^">\n]+)[">]""", re.MULTILINE)


def _includes(text: str, path: str) -> Iterator[tuple[str, ...]]:
    """`#include "a/b.h"`: beside the file, else below any folder."""
    for name in INCLUDE.findall(text):
        yield beside(path, name), name.lstrip("./")


C = tree_sitter_language(
    name="c",
    title="C",
    extensions=(".c", ".h"),
    grammar=Grammar(
        package="tree-sitter-c",
        load=_load,
        functions=frozenset({"function_definition"}),
        items=PREPROCESSOR,
        wrappers=frozenset(),
        blocks=frozenset({"compound_statement"}),
        documentation=("/*", "//"),
        max_error_share=MAX_ERROR_SHARE,
    ),
    test_names=TEST_NAMES,
    imports=_includes,
)
CPP = tree_sitter_language(
    name="cpp",
    title="C++",
    extensions=(".cpp", ".cc", ".cxx", ".c++", ".hpp", ".hh", ".hxx", ".ipp", ".inl"),
    grammar=Grammar(
        package="tree-sitter-cpp",
        load=_load_cpp,
        functions=frozenset({"function_definition"}),
        items=PREPROCESSOR | {"field_declaration_list"},
        wrappers=frozenset({"template_declaration", "namespace_definition"}),
        containers=(("class_specifier", "name"), ("struct_specifier", "name")),
        blocks=frozenset({"compound_statement"}),
        documentation=("/*", "//"),
        fragments=("{}", "class _X {\n{}\n};"),
        max_error_share=MAX_ERROR_SHARE,
    ),
    test_names=TEST_NAMES,
    imports=_includes,
)
