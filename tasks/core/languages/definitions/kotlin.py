"""Kotlin."""

import re
from collections.abc import Iterator

from tasks.core.languages.tree_sitter.grammar import Grammar, NodeTypes
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_kotlin

    return tree_sitter_kotlin.language()


IMPORT = re.compile(
    r"^[ \t]*import[ \t]+([\w.]+?)(\.\*)?(?:[ \t]+as[ \t]+\w+)?[ \t]*;?$", re.MULTILINE
)


def _imports(text: str, _path: str) -> Iterator[tuple[str, ...]]:
    """`import a.b.C`, a member of C, a function in any file of the package, or `a.b.*`."""
    for name, star in IMPORT.findall(text):
        whole, outer = name.replace(".", "/"), name.rpartition(".")[0].replace(".", "/")
        if star:
            yield f"{whole}/*.kt", f"{whole}.kt"
        else:
            yield (
                f"{whole}.kt",
                f"{outer}.kt",
                *([f"{outer}/*.kt"] if name.rpartition(".")[2][:1].islower() else []),
            )


KOTLIN = tree_sitter_language(
    name="kotlin",
    title="Kotlin",
    extensions=(".kt", ".kts"),
    grammar=Grammar(
        package="tree-sitter-kotlin",
        load=_load,
        functions=frozenset({"function_declaration", "secondary_constructor"}),
        items=frozenset({"class_body", "enum_class_body"}),
        wrappers=frozenset({"companion_object"}),
        containers=(("class_declaration", "name"), ("object_declaration", "name")),
        blocks=frozenset({"block"}),
        documentation=("/**",),
        comments=frozenset({"line_comment", "block_comment"}),
        fragments=("{}", "class _X {\n{}\n}"),
        node_types=NodeTypes(
            body=frozenset({"function_body", "block"}),
            parameters=frozenset({"function_value_parameters"}),
            parameter=frozenset({"parameter"}),
            binding=frozenset({"variable_declaration"}),
            type=frozenset({"user_type", "nullable_type", "function_type", "type_arguments"}),
        ),
    ),
    test_names=("*Test.kt", "*Tests.kt", "*Spec.kt"),
    test_folders=frozenset({"androidTest", "commonTest", "jvmTest", "testFixtures"}),
    imports=_imports,
)
