"""Rust."""

import re
from collections.abc import Iterator

from tasks.core.languages.imports import beside
from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_rust

    return tree_sitter_rust.language()


USE = re.compile(
    r"^[ \t]*(?:pub(?:\([^)]*\))?[ \t]+)?(?:use[ \t]+([^;]+)|mod[ \t]+(\w+)[ \t]*);", re.MULTILINE
)
GROUP = re.compile(r"^(.*?)\{(.*)\}$", re.DOTALL)
OWN = frozenset({"crate", "self", "super"})


def _imports(text: str, path: str) -> Iterator[tuple[str, ...]]:
    """`mod a;` and `use crate::a::b::C`: the last parts may be names inside of the file."""
    for used, module in USE.findall(text):
        if module:
            stem = path.rpartition("/")[2].removesuffix(".rs")
            near = [f"{module}.rs", f"{module}/mod.rs", f"{stem}/{module}.rs"]
            yield tuple(beside(path, name) for name in near)
            continue
        group = GROUP.match(used.strip())
        names = [group[1] + name for name in group[2].split(",")] if group else [used]
        for name in names:
            first, *parts = [part.split(" as ")[0].strip(" {}") for part in name.split("::")]
            parts = [part for part in parts if part not in OWN and part != "*"]
            inside = [parts[:length] for length in range(len(parts), 0, -1)]
            if first in OWN:
                stems = ["/".join(some) for some in inside]
            else:  # another crate of the workspace
                stems = [f"{first}/src/{'/'.join(some)}" for some in inside]
            yield tuple(f"{stem}{end}" for stem in stems for end in (".rs", "/mod.rs"))


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
    imports=_imports,
)
