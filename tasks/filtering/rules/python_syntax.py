"""Rule: the output parses as Python."""

from tasks.filtering.rules.protocol import Rule
from tasks.filtering.rules.row_view import RowView


def has_syntax_error(row: RowView) -> float:
    """1 if the output does not parse, else 0."""
    return float(row.source is None)


PYTHON_SYNTAX = Rule(
    name="python_syntax",
    setting="require_python",
    unit="",
    python_only=True,
    measure=has_syntax_error,
    kinds=lambda settings: settings.require_python,
    note=lambda row: row.syntax_error,
)
