"""C#."""

from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.language import tree_sitter_language


def _load() -> object:
    import tree_sitter_c_sharp

    return tree_sitter_c_sharp.language()


CSHARP = tree_sitter_language(
    name="csharp",
    title="C#",
    extensions=(".cs",),
    grammar=Grammar(
        package="tree-sitter-c-sharp",
        load=_load,
        functions=frozenset(
            {
                *("method_declaration", "constructor_declaration", "operator_declaration"),
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
        max_error_share=0.02,  # the preprocessor may cut expressions and lists
        fragments=("{}", "class _X {\n{}\n}"),
    ),
    test_names=("*Test.cs", "*Tests.cs", "*Spec.cs", "*Specs.cs"),
    test_folders=frozenset({"Tests", "Test", "*.Tests", "*.Test", "*.UnitTests"}),
)
