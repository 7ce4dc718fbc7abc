"""Python source code as a syntax tree, by the standard library's `ast`.

A tree is needed because text cannot tell `def f() -> int:` in a string from a definition.
"""

import ast
import io
import tokenize
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tasks.core.languages.protocol import (
    Boundary,
    DocumentedFunction,
    NotParsableError,
    Span,
    SpanKind,
)
from tasks.core.languages.python.documented import documented_functions
from tasks.core.languages.python.function_shape import (
    Function,
    body_of,
    outline,
    plain_arguments,
    shape,
)
from tasks.core.languages.python.positions import boundaries, spans

LONG_STATEMENT = 20  # nodes: more than a comprehension with a condition has

NOT_VALID = "not valid Python: "
_LOOP, _TRY = ("body", "orelse"), ("body", "orelse", "finalbody", "handlers")
# fields that hold statements of the function itself; definitions are left out on purpose
_BODIES: dict[type[ast.AST], tuple[str, ...]] = {
    ast.If: _LOOP,
    ast.For: _LOOP,
    ast.AsyncFor: _LOOP,
    ast.While: _LOOP,
    ast.With: ("body",),
    ast.AsyncWith: ("body",),
    ast.Try: _TRY,
    ast.TryStar: _TRY,
    ast.ExceptHandler: ("body",),
    ast.Match: ("cases",),
    ast.match_case: ("body",),
}


@dataclass(frozen=True)
class PythonFunction:
    """A `ParsedFunction`."""

    node: Function

    @property
    def name(self) -> str:
        """The name in its definition."""
        return self.node.name

    @property
    def docstring(self) -> str:
        """Its docstring without indentation; "" if it has none."""
        return ast.get_docstring(self.node) or ""

    @property
    def argument_count(self) -> int:
        """`*args` and `**kwargs` count one each; `self` and `cls` in the first place do not."""
        spec = self.node.args
        named = len(plain_arguments(self.node)) + len(spec.kwonlyargs)
        return named + bool(spec.vararg) + bool(spec.kwarg)

    @property
    def returned_values(self) -> int:
        """`return` statements of the function itself with a value other than None."""
        found, waiting = 0, list[ast.AST](self.node.body)
        for node in waiting:  # grows; source code can be nested deeper than Python's stack
            if isinstance(node, ast.Return):
                found += not _is_none(node.value)
            for name in _BODIES.get(type(node), ()):
                waiting += getattr(node, name)
        return found

    @property
    def is_distinctive(self) -> bool:
        """More than one statement without the docstring, or at least `LONG_STATEMENT` nodes."""
        nodes = [inner for statement in body_of(self.node) for inner in ast.walk(statement)]
        statements = sum(isinstance(node, ast.stmt) for node in nodes)
        return statements > 1 or len(nodes) >= LONG_STATEMENT

    def outline(self) -> Hashable:
        """See `function_shape.outline`."""
        return outline(self.node)

    def shape(self) -> bytes | None:
        """See `function_shape.shape`."""
        return shape(self.node)


class PythonSource:
    """A `ParsedSource`."""

    def __init__(self, module: ast.Module, text: str) -> None:
        self.module, self._text = module, text

    def functions(self) -> Iterator[PythonFunction]:
        """Functions at the top level, async ones included."""
        yield from (PythonFunction(n) for n in self.module.body if isinstance(n, Function))

    def functions_and_methods(self) -> Iterator[PythonFunction]:
        """Functions at the top level and methods of its classes."""
        for node in self.module.body:
            inner = node.body if isinstance(node, ast.ClassDef) else [node]
            yield from (PythonFunction(n) for n in inner if isinstance(n, Function))

    def documented_functions(
        self, keep_docstring: bool, methods: bool
    ) -> tuple[list[DocumentedFunction], Counter[str]]:
        """See `documented.documented_functions`."""
        return documented_functions(self.module, self._text, keep_docstring, methods)

    def boundaries(self) -> list[Boundary]:
        """See `positions.boundaries`."""
        return boundaries(self.module, self._text)

    def span(self, kind: SpanKind, position: int) -> Span | None:
        """The smallest part of a kind that holds a position."""
        around = [s for s in self._spans[kind] if s[0] <= position < s[1]]
        return min(around, key=lambda span: span[1] - span[0], default=None)

    @cached_property
    def _spans(self) -> dict[SpanKind, list[Span]]:
        return spans(self.module, self._text)


def decode(raw: bytes) -> str:
    """Text of a Python file by its own declaration (PEP 263), UTF-8 otherwise, with "\\n" line
    ends.

    Raises:
        NotParsableError: It contains a NUL byte, or is not in the encoding that it declares.
    """
    if b"\0" in raw:
        raise NotParsableError("contains a NUL byte", raw[: raw.index(b"\0")].count(b"\n") + 1)
    try:
        encoding = tokenize.detect_encoding(io.BytesIO(raw).readline)[0]
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise NotParsableError(
            f"byte {raw[error.start]:#04x} is not {error.encoding}", line
        ) from error
    except (SyntaxError, LookupError, UnicodeError) as error:
        raise NotParsableError(f"wrong encoding: {error}", 1) from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def parse(text: str) -> ast.Module:
    """Parse Python text, silently.

    Raises:
        NotParsableError: It is not valid for the running Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the user's files
        try:
            return ast.parse(text)
        except SyntaxError as error:
            raise NotParsableError(f"{NOT_VALID}{error.msg}", error.lineno or 0) from error
        # the parser raises the last two for deeply nested text
        except (ValueError, RecursionError, MemoryError) as error:
            raise NotParsableError(f"{NOT_VALID}{error or type(error).__name__}", 0) from error


def parse_source(text: str) -> PythonSource:
    """The tree of a text.

    Raises:
        NotParsableError: It is not valid for the running Python.
    """
    return PythonSource(parse(text), text)


def parse_python(text: str) -> tuple[PythonSource | None, str]:
    """The tree and "", or None and the reason why the text does not parse."""
    try:
        return parse_source(text), ""
    except NotParsableError as error:
        problem = str(error).removeprefix(NOT_VALID)
        return None, f"line {error.line}: {problem}" if error.line else problem


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)
