"""SPDX license expressions: reading one, and whether allowed licenses alone meet it.

`packaging.licenses` has the grammar and the list of licenses. Licenses of data sets that SPDX does
not list are written as `LicenseRef-NAME`; their usual short names are read, too.
"""

import re
from collections.abc import Collection
from functools import lru_cache

TOKEN = re.compile(r"\(|\)|[^\s()]+")
MAX_CHARACTERS = 1_000  # a longer expression is a mistake or an attack
OPERATORS = {"AND", "OR", "WITH"}

# short names of data sets and package metadata, in lower case
ALIASES = {
    "apache2": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "bsd-3": "BSD-3-Clause",
    "cc0": "CC0-1.0",
    "cc-by": "CC-BY-4.0",
    "odc-by": "ODC-By-1.0",
    "pddl": "PDDL-1.0",
    "cdla-permissive": "CDLA-Permissive-2.0",
    **{
        name.lower(): f"LicenseRef-{name}"
        for name in (
            *("OpenRAIL", "OpenRAIL-M", "BigScience-OpenRAIL-M", "BigCode-OpenRAIL-M"),
            *("BigScience-BLOOM-RAIL-1.0", "CreativeML-OpenRAIL-M"),
        )
    },
}


@lru_cache(maxsize=4096)  # there are many rows and few licenses
def canonical(expression: str) -> str:
    """The expression in SPDX's own spelling; "" if it is none."""
    if len(expression) > MAX_CHARACTERS:
        return ""
    # imported here: `plan` needs the names of license files alone, and this the whole list of SPDX
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    # a slash was the usual "or" before SPDX
    words = (ALIASES.get(w.lower(), w) for w in TOKEN.findall(expression.replace("/", " OR ")))
    try:
        return str(canonicalize_license_expression(" ".join(words)))
    except (InvalidLicenseExpression, RecursionError, MemoryError, SyntaxError):
        return ""


def is_met(expression: str, allowed: Collection[str]) -> bool:
    """Whether an expression can be met with allowed licenses alone.

    `A AND B` needs both, `A OR B` needs one. An exception (`WITH`) only grants more, so it does not
    count, nor does the `+` of "or any later version". What is no SPDX expression is met only if it
    is allowed as it stands.

    Args:
        expression: As a source states it.
        allowed: Names of licenses.
    """
    names = {(canonical(name) or name).lower() for name in allowed}
    if expression.lower() in names:
        return True
    known = canonical(expression)
    return bool(known) and _evaluate(TOKEN.findall(known), names)


def _evaluate(tokens: list[str], names: Collection[str]) -> bool:
    """The value of a valid expression; two stacks instead of recursion, however deep it is."""
    values: list[bool] = []
    operators: list[str] = []

    def apply() -> None:
        right, left = values.pop(), values.pop()
        values.append(left and right if operators.pop() == "AND" else left or right)

    skip = False
    for token in tokens:
        if skip:
            skip = False  # the exception after WITH
        elif token == "WITH":
            skip = True
        elif token == "(":
            operators.append(token)
        elif token == ")":
            while operators[-1] != "(":
                apply()
            operators.pop()
        elif token in OPERATORS:
            while operators and operators[-1] != "(" and (token == "OR" or operators[-1] == "AND"):
                apply()
            operators.append(token)
        else:
            name = token.lower()
            values.append(name in names or name.removesuffix("+") in names)
    while operators:
        apply()
    return values[0]
