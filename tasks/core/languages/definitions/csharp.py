"""C#."""

import re
from collections.abc import Iterator

from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_c_sharp

    return tree_sitter_c_sharp.language()


USING = re.compile(
    r"^[ \t]*(?:global[ \t]+)?using[ \t]+(?:static[ \t]+)?([\w.]+)[ \t]*;", re.MULTILINE
)


def _imports(text: str, _path: str) -> Iterator[tuple[str, ...]]:
    """`using A.B.C;`: the folder of the namespace, whose first parts may be the project's name."""
    for name in USING.findall(text):
        parts = name.split(".")
        inner = [f"{'/'.join(parts[first:])}/*.cs" for first in range(len(parts) - 1)]
        yield *inner, f"/{parts[-1]}/*.cs"


CSHARP = tree_sitter_language(
    name="csharp",
    title="C#",
    extensions=(".cs",),
    grammar=Grammar(
        package="tree-sitter-c-sharp",
        load=_load,
        functions=frozenset(
            {
                *("method_declaration", "constructor_declaration", "destructor_declaration"),
                *("operator_declaration", "conversion_operator_declaration"),
                "local_function_statement",  # a function outside of classes
            }
        ),
        items=frozenset({"declaration_list"}),
        wrappers=frozenset(
            {"namespace_declaration", "file_scoped_namespace_declaration", "global_statement"}
        ),
        containers=(
            *(("class_declaration", "name"), ("struct_declaration", "name")),
            *(("interface_declaration", "name"), ("record_declaration", "name")),
        ),
        blocks=frozenset({"block"}),
        documentation=("///", "/**"),
        names=("name", "operator", "type"),
        max_error_share=0.02,  # the preprocessor may cut expressions and lists
        fragments=("{}", "class _X {\n{}\n}"),
    ),
    test_names=("*Test.cs", "*Tests.cs", "*Spec.cs", "*Specs.cs"),
    test_folders=frozenset({"Tests", "Test", "*.Tests", "*.Test", "*.UnitTests"}),
    imports=_imports,
)
