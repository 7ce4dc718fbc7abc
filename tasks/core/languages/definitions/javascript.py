"""JavaScript."""

from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language

FUNCTIONS = frozenset(
    {
        *("function_declaration", "generator_function_declaration", "method_definition"),
        *("function_expression", "generator_function", "arrow_function"),
    }
)
WRAPPERS = frozenset(
    {
        *("export_statement", "lexical_declaration", "variable_declaration"),
        *("variable_declarator", "expression_statement", "assignment_expression", "pair"),
        *("field_definition", "public_field_definition"),
    }
)
TEST_NAMES = ("*.test.*", "*.spec.*", "*.cy.*", "*-test.*", "*_test.*")
TEST_FOLDERS = frozenset({"__tests__", "__mocks__", "spec", "specs", "e2e", "cypress"})


def _load() -> object:
    import tree_sitter_javascript

    return tree_sitter_javascript.language()


JAVASCRIPT = tree_sitter_language(
    name="javascript",
    title="JavaScript",
    extensions=(".js", ".mjs", ".cjs", ".jsx"),
    grammar=Grammar(
        package="tree-sitter-javascript",
        load=_load,
        functions=FUNCTIONS,
        items=frozenset({"class_body", "object"}),
        wrappers=WRAPPERS,
        containers=(("class_declaration", "name"), ("class", "name")),
        blocks=frozenset({"statement_block"}),
        documentation=("/*", "//"),
        attributes=frozenset({"decorator"}),
        fragments=("{}", "class _ {\n{}\n}"),
    ),
    test_names=TEST_NAMES,
    test_folders=TEST_FOLDERS,
    shebangs=("node", "deno", "bun"),
)
