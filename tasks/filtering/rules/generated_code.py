"""Rule: generated code, by a marker in its first lines (The Stack v2, arXiv:2402.19173)."""

from collections.abc import Sequence

from tasks.filtering.rules.protocol import Rule
from tasks.filtering.rules.row_view import RowView


def generated_marker(row: RowView, markers: Sequence[str], first_lines: int) -> str:
    """The first of the markers in the first lines of the code, "" if there is none."""
    head = "\n".join(row.code_lines[:first_lines]).lower()
    return next((marker for marker in markers if marker.lower() in head), "")


def has_marker(row: RowView, markers: Sequence[str], first_lines: int) -> float | None:
    """1 if a marker is found, else 0."""
    if not row.code:
        return None
    return float(bool(generated_marker(row, markers, first_lines)))


GENERATED_CODE = Rule(
    name="generated_code",
    setting="generated_markers",
    unit="",
    measure=has_marker,
    parameters=lambda settings: (settings.generated_markers, settings.generated_marker_lines),
    note=generated_marker,
)
