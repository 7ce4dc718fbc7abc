"""JavaScript."""

import re
from collections.abc import Iterator

from tasks.core.languages.imports import beside
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
TEST_NAMES = (
    *(
        "*.test.*",
        "*.spec.*",
        "*.cy.*",
        "*.e2e.*",
        "*-spec.*",
        "*-test.*",
        "*_test.*",
        "*.test-d.*",
    ),
    "setupTests.*",
)
NAMES = ("name", "left", "key", "property")
TEST_FOLDERS = frozenset({"__tests__", "__mocks__", "spec", "specs", "e2e", "cypress"})


def _load() -> object:
    import tree_sitter_javascript

    return tree_sitter_javascript.language()


SPECIFIER = re.compile(
    r"""(?:\bfrom|\bimport|\brequire[ \t]*\(|\bimport[ \t]*\()[ \t]*["']([^"'\n]+)["']"""
)
ENDINGS = ("", *(".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", ".mts", ".cts"))
ALIASES = ("@/", "~/", "#/")


def imports(text: str, path: str) -> Iterator[tuple[str, ...]]:
    """`import ... from "./a"` and `require("./a")`, without or with an extension, which may be that
    of the compiled file; "@/a" and "a/b" are below any folder."""
    for name in SPECIFIER.findall(text):
        if name.startswith("."):
            target = beside(path, name)
        elif name.startswith(ALIASES):
            target = name[2:]
        else:
            target = name if "/" in name and not name.startswith(("@", "/")) else ""
        if target:
            stem = target.removesuffix(".js").removesuffix(".mjs")
            names = [f"{place}{ending}" for place in (target, stem) for ending in ENDINGS]
            yield *names, *(f"{target}/index{ending}" for ending in ENDINGS[1:])


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
        calls=frozenset({"call_expression", "arguments"}),
        documentation=("/*", "//"),
        attributes=frozenset({"decorator"}),
        names=NAMES,
        fragments=("{}", "class _ {\n{}\n}"),
    ),
    test_names=TEST_NAMES,
    test_folders=TEST_FOLDERS,
    shebangs=("node", "deno", "bun"),
    imports=imports,
)
