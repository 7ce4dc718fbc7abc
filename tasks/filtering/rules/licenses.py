"""Rule: the row's SPDX license expression can be met with licenses of the allow-list alone."""

from collections.abc import Sequence
from functools import lru_cache

from tasks.core.rows.spdx import is_met
from tasks.filtering.rules.protocol import Rule
from tasks.filtering.rules.row_view import RowView


def not_allowed(row: RowView, allowed: tuple[str, ...], keep_unknown: Sequence[str]) -> float:
    """1 if the license is not allowed, or unknown where the row's kind needs one; else 0."""
    if not row.licence:
        return float(row.kind not in keep_unknown)
    return float(not _is_met(row.licence, allowed))


@lru_cache(maxsize=1024)  # the rows of a project state the same one
def _is_met(expression: str, allowed: tuple[str, ...]) -> bool:
    return is_met(expression, allowed)


LICENCE = Rule(
    name="licence",
    setting="licences",
    unit="",
    measure=not_allowed,
    parameters=lambda settings: (
        (*settings.licences, *settings.more_licences),
        settings.keep_unknown_licence,
    ),
    note=lambda row, *_: row.licence or "unknown",
)
