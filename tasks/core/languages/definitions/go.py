"""Go."""

from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_go

    return tree_sitter_go.language()


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
)
