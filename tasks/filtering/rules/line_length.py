"""Rules about lines: very many or very long ones mean data, minified or generated code."""

from tasks.filtering.rules.protocol import Rule, functions_only
from tasks.filtering.rules.row_view import RowView


def line_count(row: RowView) -> float:
    """Lines of the output."""
    return len(row.lines)


def mean_line(row: RowView) -> float | None:
    """Mean length of the code's lines."""
    return sum(map(len, row.code_lines)) / len(row.code_lines) if row.code_lines else None


def longest_line(row: RowView) -> float | None:
    """Length of the code's longest line."""
    return max(map(len, row.code_lines), default=None)


LINES = Rule(
    name="lines",
    setting="max_lines",
    unit="lines",
    measure=line_count,
    threshold=lambda settings: settings.max_lines,
)
MEAN_LINE = Rule(
    name="mean_line",
    setting="max_mean_line",
    unit="characters",
    measure=mean_line,
    threshold=lambda settings: settings.max_mean_line,
)
LONGEST_LINE = Rule(
    name="longest_line",
    setting="max_longest_line",
    unit="characters",
    measure=longest_line,
    threshold=lambda settings: settings.max_longest_line,
)
FUNCTION_LINES = Rule(
    name="function_lines",
    setting="max_function_lines",
    unit="lines",
    measure=line_count,
    threshold=lambda settings: settings.max_function_lines,
    kinds=functions_only,
)
