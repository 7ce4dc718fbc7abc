"""ShareGPT: a list of turns with `from` and `value`; system text and tools may have columns of
their own."""

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.rows.messages import MESSAGES, speaker_of
from tasks.ingestion.formats.rows.messages import ROLES as MESSAGES_ROLES
from tasks.ingestion.formats.rows.protocol import BoundFormat, RowFormat

ROLES = {**MESSAGES_ROLES, "messages": ("conversations", *MESSAGES_ROLES["messages"])}


def _fits(bound: BoundFormat, values: Values) -> bool:
    return speaker_of(bound.value("messages", values)) == "from"


SHAREGPT = RowFormat("sharegpt", ROLES, _fits, MESSAGES.texts, lambda _mapping: ("messages",))
