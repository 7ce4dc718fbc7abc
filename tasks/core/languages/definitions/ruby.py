"""Ruby."""

import re
from collections.abc import Iterator

from tasks.core.languages.imports import beside
from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_ruby

    return tree_sitter_ruby.language()


REQUIRE = re.compile(
    r"""^[ \t]*(require|require_relative)[ \t(]+["']([^"'\n]+)["']""", re.MULTILINE
)


def _imports(text: str, path: str) -> Iterator[tuple[str, ...]]:
    """`require_relative "a"`, and `require "a/b"` from a folder `lib`."""
    for how, name in REQUIRE.findall(text):
        file = name.removesuffix(".rb") + ".rb"
        if how == "require_relative":
            yield (beside(path, file),)
        else:
            yield f"lib/{file}", *([file] if "/" in file else [])


RUBY = tree_sitter_language(
    name="ruby",
    title="Ruby",
    extensions=(".rb", ".rake"),
    grammar=Grammar(
        package="tree-sitter-ruby",
        load=_load,
        functions=frozenset({"method", "singleton_method"}),
        items=frozenset({"body_statement"}),
        wrappers=frozenset({"argument_list", "call"}),  # private def ...
        containers=(("module", "name"), ("class", "name"), ("singleton_class", "value")),
        blocks=frozenset({"body_statement", "block_body", "then", "do"}),
        documentation=("#", "=begin"),
        line_comment="#",
    ),
    test_names=("*_spec.rb", "*_test.rb", "test_*.rb", "spec_helper.rb"),
    test_folders=frozenset({"spec", "features"}),
    shebangs=("ruby", "jruby"),
    imports=_imports,
)
