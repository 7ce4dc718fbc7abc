"""Rule: the row's SPDX license expression can be met with licenses of the allow-list alone."""

import re
from collections.abc import Sequence
from functools import lru_cache

from tasks.filtering.rules.protocol import Rule
from tasks.filtering.rules.row_view import RowView

TOKEN = re.compile(r"\(|\)|[A-Za-z0-9.+:-]+")


def not_allowed(row: RowView, allowed: tuple[str, ...], keep_unknown: Sequence[str]) -> float:
    """1 if the license is not allowed, or unknown where the row's kind needs one; else 0."""
    if not row.licence:
        return float(row.kind not in keep_unknown)
    return float(not is_allowed(row.licence, allowed))


LICENCE = Rule(
    name="licence",
    setting="licences",
    unit="",
    measure=not_allowed,
    parameters=lambda settings: (settings.licences, settings.keep_unknown_licence),
    note=lambda row, *_: row.licence or "unknown",
)


@lru_cache(maxsize=1024)  # there are many rows and few licenses
def is_allowed(expression: str, allowed: tuple[str, ...]) -> bool:
    """Whether a license expression can be met with allowed licenses alone.

    `A AND B` needs both, `A OR B` needs one. An exception (`WITH`) only grants more, so it does not
    count. An expression outside the SPDX grammar is not allowed.
    """
    names = {name.lower() for name in allowed}
    tokens = TOKEN.findall(expression)
    if not tokens or "".join(tokens) != "".join(expression.split()):
        return False
    try:
        is_met, rest = _any_of(tokens, names)
    except (IndexError, ValueError):
        return False
    return is_met and not rest


# Recursive descent, one function per precedence level. Each takes tokens and returns whether the
# expression at their start is met, and the tokens after it.
def _any_of(tokens: list[str], names: set[str]) -> tuple[bool, list[str]]:
    is_met, rest = _all_of(tokens, names)
    while rest and rest[0].upper() == "OR":
        other, rest = _all_of(rest[1:], names)
        is_met = is_met or other
    return is_met, rest


def _all_of(tokens: list[str], names: set[str]) -> tuple[bool, list[str]]:
    is_met, rest = _one(tokens, names)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:], names)
        is_met = is_met and other
    return is_met, rest


def _one(tokens: list[str], names: set[str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        is_met, rest = _any_of(tokens[1:], names)
        if rest[0] != ")":
            raise ValueError("unclosed parenthesis")
        return is_met, rest[1:]
    name, rest = tokens[0], tokens[1:]
    if rest and rest[0].upper() == "WITH":
        rest = rest[2:]
    return name.lower() in names, rest
