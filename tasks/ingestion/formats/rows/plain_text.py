"""Text: one column, trained on as a whole."""

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.rows.protocol import BoundFormat, RowFormat, RowTexts


def _fits(bound: BoundFormat, values: Values) -> bool:
    return bound.has_text("text", values)


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    return RowTexts("text", "", "", bound.text("text", values))


TEXT = RowFormat("text", {"text": ("text", "content")}, _fits, _texts, lambda _mapping: ("text",))
