"""Rust."""

from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_rust

    return tree_sitter_rust.language()


RUST = tree_sitter_language(
    name="rust",
    title="Rust",
    extensions=(".rs",),
    grammar=Grammar(
        package="tree-sitter-rust",
        load=_load,
        functions=frozenset({"function_item"}),
        items=frozenset({"declaration_list"}),
        wrappers=frozenset({"mod_item"}),
        containers=(("impl_item", "type"), ("trait_item", "name")),
        blocks=frozenset({"block"}),
        documentation=("///", "/**"),
        comments=frozenset({"line_comment", "block_comment"}),
        attributes=frozenset({"attribute_item", "inner_attribute_item"}),
        receivers=frozenset({"self_parameter"}),
        fragments=("{}", "impl _X {\n{}\n}"),
    ),
    test_names=("tests.rs", "test.rs", "*_test.rs", "*_tests.rs"),
    test_folders=frozenset({"benches"}),
)
