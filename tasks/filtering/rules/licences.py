"""Rule: is an SPDX expression within the allow-list?"""

import re
from functools import lru_cache

TOKEN = re.compile(r"\(|\)|[A-Za-z0-9.+:-]+")


@lru_cache(maxsize=1024)  # many rows, few licences
def is_allowed(expression: str, allowed: frozenset[str]) -> bool:
    """Whether a licence expression can be met with allowed licences alone.

    `A AND B` needs both, `A OR B` one. An exception (`WITH`) only grants more, so it does not
    count. What does not follow the SPDX grammar is not allowed.
    """
    names = {name.lower() for name in allowed}
    tokens = TOKEN.findall(expression)
    if not tokens or "".join(tokens) != "".join(expression.split()):
        return False
    try:
        verdict, rest = _any_of(tokens, names)
    except (IndexError, ValueError):
        return False
    return verdict and not rest


def _any_of(tokens: list[str], names: set[str]) -> tuple[bool, list[str]]:
    verdict, rest = _all_of(tokens, names)
    while rest and rest[0].upper() == "OR":
        other, rest = _all_of(rest[1:], names)
        verdict = verdict or other
    return verdict, rest


def _all_of(tokens: list[str], names: set[str]) -> tuple[bool, list[str]]:
    verdict, rest = _one(tokens, names)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:], names)
        verdict = verdict and other
    return verdict, rest


def _one(tokens: list[str], names: set[str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        verdict, rest = _any_of(tokens[1:], names)
        if rest[0] != ")":
            raise ValueError("unclosed bracket")
        return verdict, rest[1:]
    name, rest = tokens[0], tokens[1:]
    if rest and rest[0].upper() == "WITH":
        rest = rest[2:]
    return name.lower() in names, rest
