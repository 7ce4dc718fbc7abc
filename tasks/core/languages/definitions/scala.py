"""Scala."""

import re
from collections.abc import Iterator

from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_scala

    return tree_sitter_scala.language()


IMPORT = re.compile(r"^[ \t]*import[ \t]+([\w.]+?)\.(?:(\w+|\*)|\{([^}]*)\})[ \t]*$", re.MULTILINE)
RENAMED = re.compile(r"\s*(?:=>|\bas\b).*", re.DOTALL)


def _imports(text: str, _path: str) -> Iterator[tuple[str, ...]]:
    """`import a.b.C`, `import a.b._`, `import a.b.{C, D => E}`; a name may be in the file of the
    object that it is taken from."""
    for package, name, group in IMPORT.findall(text):
        folder = package.replace(".", "/")
        for one in group.split(",") if group else [name]:
            own = RENAMED.sub("", one).strip()
            if own in ("_", "*"):
                yield f"{folder}/*.scala", f"{folder}.scala"
            elif own:
                yield f"{folder}/{own}.scala", f"{folder}.scala"


SCALA = tree_sitter_language(
    name="scala",
    title="Scala",
    extensions=(".scala", ".sc"),
    grammar=Grammar(
        package="tree-sitter-scala",
        load=_load,
        functions=frozenset({"function_definition"}),
        items=frozenset({"template_body", "enum_body"}),
        wrappers=frozenset({"package_clause", "extension_definition"}),
        containers=(
            *(("class_definition", "name"), ("object_definition", "name")),
            *(("trait_definition", "name"), ("enum_definition", "name")),
        ),
        blocks=frozenset({"block", "indented_block"}),
        open_blocks=frozenset({"indented_block"}),
        documentation=("/**",),
        comments=frozenset({"comment", "block_comment"}),
        attributes=frozenset({"annotation"}),
        fragments=("{}", "class _X {\n{}\n}"),
    ),
    test_names=("*Test.scala", "*Tests.scala", "*Spec.scala", "*Suite.scala"),
    imports=_imports,
)
