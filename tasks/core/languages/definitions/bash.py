"""Shell scripts, by the grammar of Bash."""

import re
from collections.abc import Iterator

from tasks.core.languages.imports import beside
from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_bash

    return tree_sitter_bash.language()


SOURCE = re.compile(r"""^[ \t]*(?:source|\.)[ \t]+["']?(?:\$[^/\s]*/)?([^\s"';$]+)""", re.MULTILINE)


def _imports(text: str, path: str) -> Iterator[tuple[str, ...]]:
    """`source ./lib.sh`, also behind a variable: `. "$HERE/lib.sh"`."""
    for name in SOURCE.findall(text):
        yield beside(path, name), name.lstrip("./")


BASH = tree_sitter_language(
    name="bash",
    title="Bash",
    extensions=(".sh", ".bash"),
    grammar=Grammar(
        package="tree-sitter-bash",
        load=_load,
        functions=frozenset({"function_definition"}),
        items=frozenset(),
        wrappers=frozenset(),
        blocks=frozenset({"compound_statement", "do_group"}),
        documentation=("#",),
        line_comment="#",
        max_error_share=0.02,  # the grammar lacks some expansions, such as ${name:$i:1}
    ),
    test_names=("*_test.sh", "test_*.sh", "*.test.sh", "test.sh"),
    shebangs=("sh", "bash", "dash", "ksh", "zsh"),
    imports=_imports,
)
