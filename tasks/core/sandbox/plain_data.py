"""Plain data as JSON: what program and checker of the sandbox pass to each other.

In: values of the built-in types and of a few types of the standard library. Out: JSON types. JSON
has no tuples, sets, bytes or keys other than text: each such value becomes a dict with one key, the
name of its type. pickle would run code of the program in the checker.

Runs inside the sandbox, so it imports the standard library only, and rare modules where needed.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

MAX_DETAIL = 300  # characters of an error's text
MAX_ITEMS = 100_000  # of an iterator, which may have no end
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
_SCALARS = (type(None), bool, str, float)
_SAFE_INT = 1 << 53  # larger ones travel as hex: Python refuses to parse decimals of 4,300 digits
_NO_VALUES: Mapping[int, int] = {}


class Opaque:
    """Replaces a returned object that is not plain data; equal only to itself."""

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def __repr__(self) -> str:
        return self.shown


class NotPlainDataError(BaseException):
    """A test passes an object that has no copy in the program's process, such as a function."""


def pack(value: Any, known: Mapping[int, int] = _NO_VALUES, strict: bool = False) -> Any:
    """Convert plain data to JSON types.

    Args:
        value: What to convert; subclasses become their base class (a Counter is a dict), without
            the methods that they override.
        known: `id` of containers that the other side has -> their number there.
        strict: Raise NotPlainDataError for any other object, instead of packing its repr.
    """
    if type(value) in _SCALARS:
        return value
    if id(value) in known:
        return {"known": known[id(value)]}

    def inner(part: Any) -> Any:
        return pack(part, known, strict)

    for kind, packed in _PACKED:
        if isinstance(value, kind):
            return packed(value, inner)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if name in _STANDARD:
        return _STANDARD[name](value, inner)
    if hasattr(type(value), "__next__") and not strict:
        items = [inner(item) for item in islice(value, MAX_ITEMS + 1)]
        if len(items) > MAX_ITEMS:
            raise ValueError(f"an iterator of more than {MAX_ITEMS:,} items can't be passed on")
        return {"iterator": items}
    if strict and not isinstance(value, Opaque):
        raise NotPlainDataError(type(value).__name__)
    return {"opaque": repr(value)[:MAX_DETAIL]}


def contents(container: Any, known: Mapping[int, int]) -> Any:
    """A container's own items, packed, with nested containers that are known as their numbers."""
    others = {key: number for key, number in known.items() if key != id(container)}
    return pack(container, others)


def containers(value: Any) -> list[Any]:
    """The containers in plain data that a function can change, in an order that depends on nothing
    but the data; one that occurs twice is listed twice, as its copy has two copies of it."""
    found: list[Any] = []
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, _CHANGEABLE):
            found.append(part)
        if isinstance(part, dict):
            left += part.values()
        elif isinstance(part, (list, tuple, deque)):
            left += part
    return found


def replace(container: Any, new: Any) -> None:
    """Give a container of `containers` the items of another one."""
    if isinstance(container, (list, bytearray)):
        container[:] = new
    else:
        container.clear()
        (container.extend if isinstance(container, deque) else container.update)(new)


_CHANGEABLE = (list, dict, set, bytearray, deque)
_Inner = Callable[[Any], Any]


def _number(value: int, _: _Inner) -> Any:
    number = int(value)
    return number if abs(number) < _SAFE_INT else {"int": hex(number)}


def _items(name: str) -> Callable[[Any, _Inner], Any]:
    return lambda values, inner: {name: [inner(v) for v in values]}


def _text(name: str, text_of: Callable[[Any], str]) -> Callable[[Any, _Inner], Any]:
    return lambda value, _: {name: text_of(value)}


def _pairs(values: Any, inner: _Inner) -> Any:
    return {"dict": [[inner(k), inner(v)] for k, v in values.items()]}


_PACKED: tuple[tuple[type, Callable[[Any, _Inner], Any]], ...] = (
    (int, _number),
    (float, lambda value, _: float(value)),
    (str, lambda value, _: "".join(value)),
    (list, lambda values, inner: [inner(v) for v in values]),
    (tuple, _items("tuple")),
    (set, _items("set")),
    (frozenset, _items("frozenset")),
    (dict, _pairs),
    (complex, lambda value, _: {"complex": [value.real, value.imag]}),
    (bytes, _text("bytes", bytes.hex)),
    (bytearray, _text("bytearray", bytearray.hex)),
    (range, lambda value, _: {"range": [value.start, value.stop, value.step]}),
)
_STANDARD: dict[str, Callable[[Any, _Inner], Any]] = {
    "decimal.Decimal": _text("decimal", str),
    "fractions.Fraction": lambda value, _: {
        "fraction": [hex(value.numerator), hex(value.denominator)]
    },
    "datetime.datetime": _text("datetime", lambda value: value.isoformat()),
    "datetime.date": _text("date", lambda value: value.isoformat()),
    "datetime.time": _text("time", lambda value: value.isoformat()),
    "datetime.timedelta": lambda value, _: {
        "timedelta": [value.days, value.seconds, value.microseconds]
    },
    "pathlib.PosixPath": _text("path", str),
    "pathlib.PurePosixPath": _text("pure_path", str),
    "pathlib._local.PosixPath": _text("path", str),  # Python 3.13 defines them in a submodule
    "pathlib._local.PurePosixPath": _text("pure_path", str),
    "uuid.UUID": _text("uuid", str),
    "collections.deque": _items("deque"),
    "builtins.dict_keys": _items("keys"),
    "builtins.dict_values": _items("values"),
    "builtins.dict_items": _items("pairs"),
}


def unpack(value: Any, known: Sequence[Any] = ()) -> Any:
    """Invert `pack`; raises one of `UNREADABLE` for anything else."""
    if isinstance(value, list):
        return [unpack(v, known) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "known":
        return known[content]
    return _UNPACKED[kind](content, lambda part: unpack(part, known))


# these modules are imported only where a program uses them: each takes milliseconds of every start
def _decimal(text: Any, _: _Inner) -> Any:
    from decimal import Decimal

    return Decimal(text)


def _fraction(pair: Any, _: _Inner) -> Any:
    from fractions import Fraction

    return Fraction(*(int(number, 16) for number in pair))


def _moment(name: str) -> Callable[[Any, _Inner], Any]:
    def unpacked(text: Any, _: _Inner) -> Any:
        import datetime

        return getattr(datetime, name).fromisoformat(text)

    return unpacked


def _timedelta(parts: Any, _: _Inner) -> Any:
    from datetime import timedelta

    return timedelta(*parts)


def _path(name: str) -> Callable[[Any, _Inner], Any]:
    def unpacked(text: Any, _: _Inner) -> Any:
        import pathlib

        return getattr(pathlib, name)(text)

    return unpacked


def _uuid(text: Any, _: _Inner) -> Any:
    from uuid import UUID

    return UUID(text)


_UNPACKED: dict[str, Callable[[Any, _Inner], Any]] = {
    "tuple": lambda values, inner: tuple(inner(v) for v in values),
    "set": lambda values, inner: {inner(v) for v in values},
    "frozenset": lambda values, inner: frozenset(inner(v) for v in values),
    "dict": lambda items, inner: {inner(k): inner(v) for k, v in items},
    "int": lambda text, _: int(text, 16),
    "bytes": lambda text, _: bytes.fromhex(text),
    "bytearray": lambda text, _: bytearray.fromhex(text),
    "complex": lambda pair, _: complex(*pair),
    "range": lambda bounds, _: range(*bounds),
    "opaque": lambda shown, _: Opaque(str(shown)),
    "iterator": lambda items, inner: (inner(item) for item in items),
    "decimal": _decimal,
    "fraction": _fraction,
    "datetime": _moment("datetime"),
    "date": _moment("date"),
    "time": _moment("time"),
    "timedelta": _timedelta,
    "path": _path("PosixPath"),
    "pure_path": _path("PurePosixPath"),
    "uuid": _uuid,
    "deque": lambda values, inner: deque(inner(v) for v in values),
    "keys": lambda values, inner: dict.fromkeys(inner(v) for v in values).keys(),
    "values": lambda values, inner: dict(enumerate(inner(v) for v in values)).values(),
    "pairs": lambda values, inner: dict(inner(v) for v in values).items(),
}
