"""Languages without a grammar: their files are text to continue and to fill in, with no functions.

Those that are no programming languages, such as Markdown, are read only where a source names them.
"""

import re
from collections import Counter
from collections.abc import Iterator

from tasks.core.languages.protocol import (
    Boundary,
    DocumentedFunction,
    Language,
    ParsedFunction,
    Span,
    SpanKind,
)
from tasks.core.languages.tree_sitter.language import decode

NO_FUNCTIONS = "files in languages whose functions are not known"
# a line without indentation below an empty one
PARAGRAPH = re.compile(rb"\n[ \t]*\n(?=[^\s])")


class PlainSource:
    """A `ParsedSource` without functions."""

    def __init__(self, text: str) -> None:
        self._data = text.encode()

    def functions(self) -> Iterator[ParsedFunction]:
        """None."""
        return iter(())

    def functions_and_methods(self) -> Iterator[ParsedFunction]:
        """None."""
        return iter(())

    def documented_functions(
        self, keep_docstring: bool, methods: bool
    ) -> tuple[list[DocumentedFunction], Counter[str]]:
        """None, with a count."""
        return [], Counter({NO_FUNCTIONS: 1})

    def boundaries(self) -> list[Boundary]:
        """Where paragraphs without indentation begin."""
        return [Boundary(0, 0), *(Boundary(m.end(), 0) for m in PARAGRAPH.finditer(self._data))]

    def span(self, kind: SpanKind, position: int) -> Span | None:
        """None."""
        return None


def _plain(
    name: str,
    title: str,
    extensions: str,
    comment: str,
    shebangs: tuple[str, ...] = (),
    is_default: bool = True,
) -> Language:
    return Language(
        name=name,
        title=title,
        extensions=tuple(extensions.split()),
        parser=(),
        line_comment=comment,
        decode=decode,
        parse=PlainSource,
        parse_fragment=PlainSource,
        shebangs=shebangs,
        test_names=("*Test.*", "*Tests.*", "*_test.*", "test_*.*", "*_spec.*"),
        is_default=is_default,
    )


PLAIN = (
    _plain("dart", "Dart", ".dart", "//"),
    _plain("elixir", "Elixir", ".ex .exs", "#", ("elixir",)),
    _plain("haskell", "Haskell", ".hs", "--", ("runhaskell",)),
    _plain("julia", "Julia", ".jl", "#", ("julia",)),
    _plain("lua", "Lua", ".lua", "--", ("lua", "luajit")),
    _plain("perl", "Perl", ".pl .pm", "#", ("perl",)),
    _plain("powershell", "PowerShell", ".ps1 .psm1", "#", ("pwsh",)),
    _plain("r", "R", ".r", "#", ("Rscript",)),
    _plain("sql", "SQL", ".sql", "--"),
    _plain("swift", "Swift", ".swift", "//"),
    _plain("zig", "Zig", ".zig", "//"),
    _plain("css", "CSS", ".css .scss .less", "//", is_default=False),
    _plain("html", "HTML", ".html .htm .vue .svelte", "#", is_default=False),
    _plain("markdown", "Markdown", ".md .rst", "#", is_default=False),
    _plain("toml", "TOML", ".toml", "#", is_default=False),
    _plain("yaml", "YAML", ".yaml .yml", "#", is_default=False),
)
