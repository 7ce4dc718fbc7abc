"""Columns of a record: a name, a path into nested fields, or a template that combines several.

    answer                   the value of a column
    answers.0.body           field `body` of the first item of column `answers`, which may be JSON
    "{title}\\n\\n{body}"      a text with the values of several columns; {{ and }} are braces

A column whose name contains a dot is found by its whole name first.
"""

import json
import re
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, Final, NamedTuple

from tasks.ingestion.rows import Unfit

MAX_PRINTED = 1 << 20  # characters; a syntax tree takes far more memory
MISSING: Final[Any] = object()  # a column that a record does not have
MAX_DEPTH = 5  # of the paths that are listed
FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")

Values = Mapping[str, Any]


class Column(NamedTuple):
    """One column as the settings name it.

    Attributes:
        spec: The name, path or template.
        paths: The paths that it reads: itself, or the fields of a template.
        get: Values of a record -> the value of the column, or `MISSING`.
    """

    spec: str
    paths: tuple[str, ...]
    get: Callable[[Values], Any]

    def missing(self, values: Values) -> list[str]:
        """Its paths that a record does not have."""
        return [path for path in self.paths if value_at(values, path) is MISSING]

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of the file that may hold it."""
        return (*self.paths, *(path.split(".")[0] for path in self.paths))


@cache
def column(spec: str) -> Column:
    """The column that a name, path or template of the settings means."""
    fields = tuple(dict.fromkeys(name for name in FIELD.findall(spec) if name))
    if fields:
        return Column(spec, fields, partial(_filled, spec, fields))
    if "." in spec:
        return Column(spec, (spec,), lambda values: value_at(values, spec))
    return Column(spec, (spec,), lambda values: values.get(spec, MISSING))


def value_at(values: Values, path: str) -> Any:
    """The value of a column or nested field; `MISSING` if there is none."""
    if path in values:
        return values[path]
    node: Any = values
    for part in path.split("."):
        node = decoded(node)
        if isinstance(node, Unfit):
            return node
        if isinstance(node, Mapping):
            node = node.get(part, MISSING)
        elif isinstance(node, list) and part.removeprefix("-").isdecimal():
            place = int(part)
            node = node[place] if -len(node) <= place < len(node) else MISSING
        else:
            return MISSING
    return node


def decoded(value: Any) -> Any:
    """A value in JSON, as CSV files have it, or as Python prints it, as pandas writes it to them,
    decoded; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return literal_eval(value.strip()) if len(value) < MAX_PRINTED else value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _filled(template: str, fields: tuple[str, ...], values: Values) -> Any:
    """A template with the values of a record; a value other than text or a number is returned as it
    is, to be reported. A record with none of the texts gives "", as a column would."""
    texts: dict[str, str] = {}
    for field in fields:
        value = value_at(values, field)
        if value is MISSING or not isinstance(value, str | int | float | None):
            return value
        texts[field] = "" if value is None else str(value)
    if not any(text.strip() for text in texts.values()):
        return ""
    return FIELD.sub(lambda m: texts[m[1]] if m[1] else m[0][0], template)


def paths_of(values: Values) -> Iterator[tuple[str, Any]]:
    """(path, value) of the columns of a record, with nested fields in place of the objects that
    contain them; of a list, its first item."""
    for name, value in values.items():
        yield from _below(str(name), value, MAX_DEPTH)


def _below(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if depth and isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _below(f"{path}.{name}", inner, depth - 1)
    elif depth and isinstance(value, list) and value:
        yield from _below(f"{path}.0", value[0], depth - 1)
    else:
        yield path, value
