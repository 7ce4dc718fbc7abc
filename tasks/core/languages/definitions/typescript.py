"""TypeScript, and TypeScript with JSX, which has another grammar."""

from dataclasses import replace

from tasks.core.languages.definitions import javascript
from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_typescript

    return tree_sitter_typescript.language_typescript()


def _load_tsx() -> object:
    import tree_sitter_typescript

    return tree_sitter_typescript.language_tsx()


GRAMMAR = Grammar(
    package="tree-sitter-typescript",
    load=_load,
    functions=javascript.FUNCTIONS,
    signatures=frozenset({"function_signature", "method_signature"}),
    items=frozenset({"class_body", "object", "statement_block"}),  # the last of a namespace
    wrappers=javascript.WRAPPERS | {"internal_module", "ambient_declaration"},
    containers=(
        *(("class_declaration", "name"), ("abstract_class_declaration", "name")),
        ("class", "name"),
    ),
    blocks=frozenset({"statement_block"}),
    calls=frozenset({"call_expression", "arguments"}),
    documentation=("/*", "//"),
    attributes=frozenset({"decorator"}),
    fragments=("{}", "class _ {\n{}\n}"),
)

TYPESCRIPT = tree_sitter_language(
    name="typescript",
    title="TypeScript",
    extensions=(".ts", ".mts", ".cts"),
    grammar=GRAMMAR,
    test_names=javascript.TEST_NAMES,
    test_folders=javascript.TEST_FOLDERS,
    shebangs=("ts-node", "tsx"),
    imports=javascript.imports,
)
TSX = tree_sitter_language(
    name="tsx",
    title="TSX",
    extensions=(".tsx",),
    grammar=replace(GRAMMAR, load=_load_tsx),
    test_names=javascript.TEST_NAMES,
    test_folders=javascript.TEST_FOLDERS,
    imports=javascript.imports,
)
