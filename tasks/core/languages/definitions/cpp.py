"""C++."""

from tasks.core.languages.definitions import c
from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_cpp

    return tree_sitter_cpp.language()


CPP = tree_sitter_language(
    name="cpp",
    title="C++",
    extensions=(".cpp", ".cc", ".cxx", ".c++", ".hpp", ".hh", ".hxx", ".ipp", ".inl"),
    grammar=Grammar(
        package="tree-sitter-cpp",
        load=_load,
        functions=frozenset({"function_definition"}),
        items=c.PREPROCESSOR | {"field_declaration_list"},
        wrappers=frozenset({"template_declaration", "namespace_definition"}),
        containers=(("class_specifier", "name"), ("struct_specifier", "name")),
        blocks=frozenset({"compound_statement"}),
        documentation=("/*", "//"),
        fragments=("{}", "class _X {\n{}\n};"),
        max_error_share=c.MAX_ERROR_SHARE,
    ),
    test_names=c.TEST_NAMES,
    imports=c.includes,
)
