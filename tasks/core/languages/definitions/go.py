"""Go."""

import re
from collections.abc import Iterator

from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_go

    return tree_sitter_go.language()


IMPORT = re.compile(r"^import[ \t]+(?:\(([^)]*)\)|([^\n(]+))", re.MULTILINE)
QUOTED = re.compile(r'"([^"\n]+)"')


def _imports(text: str, _path: str) -> Iterator[tuple[str, ...]]:
    """`import "host/owner/module/a/b"`: the folder of the package, after any part of the module."""
    for block, line in IMPORT.findall(text):
        for name in QUOTED.findall(block or line):
            parts = name.split("/")
            rest = ["/".join(parts[first:]) for first in range(1, len(parts))]
            exact = [f"/{folder}/*.go" for folder in rest]
            yield *exact, *(f"{folder}/*.go" for folder in rest if "/" in folder)


GO = tree_sitter_language(
    name="go",
    title="Go",
    extensions=(".go",),
    grammar=Grammar(
        package="tree-sitter-go",
        load=_load,
        functions=frozenset({"function_declaration", "method_declaration"}),
        items=frozenset(),
        wrappers=frozenset(),
        blocks=frozenset({"block", "statement_list"}),
        documentation=("//", "/*"),
        owners=("receiver",),
    ),
    test_names=("*_test.go",),
    test_folders=frozenset({"testdata"}),
    imports=_imports,
)
