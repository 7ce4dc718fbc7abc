"""Java."""

import re
from collections.abc import Iterator

from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_java

    return tree_sitter_java.language()


IMPORT = re.compile(r"^[ \t]*import[ \t]+(static[ \t]+)?([\w.]+?)(\.\*)?[ \t]*;", re.MULTILINE)


def _imports(text: str, _path: str) -> Iterator[tuple[str, ...]]:
    """`import a.b.C;`, a class inside of C, a static member of it, or `a.b.*`."""
    for static, name, star in IMPORT.findall(text):
        whole, outer = name.replace(".", "/"), name.rpartition(".")[0].replace(".", "/")
        if star and not static:
            yield (f"{whole}/*.java",)
        else:
            yield f"{whole}.java", f"{outer}.java"


JAVA = tree_sitter_language(
    name="java",
    title="Java",
    extensions=(".java",),
    grammar=Grammar(
        package="tree-sitter-java",
        load=_load,
        functions=frozenset(
            {"method_declaration", "constructor_declaration", "compact_constructor_declaration"}
        ),
        items=frozenset(
            {
                *("class_body", "interface_body", "enum_body", "enum_body_declarations"),
                "annotation_type_body",
            }
        ),
        wrappers=frozenset(),
        containers=(
            *(("class_declaration", "name"), ("interface_declaration", "name")),
            *(("enum_declaration", "name"), ("record_declaration", "name")),
            ("enum_constant", "name"),
        ),
        blocks=frozenset({"block", "constructor_body"}),
        documentation=("/**", "///"),
        comments=frozenset({"line_comment", "block_comment"}),
        fragments=("{}", "class _X {\n{}\n}"),
    ),
    test_names=("*Test.java", "*Tests.java", "Test*.java", "*IT.java", "*TestCase.java"),
    test_folders=frozenset({"androidTest", "testFixtures"}),
    imports=_imports,
)
