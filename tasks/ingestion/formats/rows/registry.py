"""All row formats, in the order in which they are tried. A new one is one module that defines a
`RowFormat`, one entry here, and its name in `RowFormatName` of the settings."""

from tasks.ingestion.formats.rows.alpaca import ALPACA
from tasks.ingestion.formats.rows.instruction import INSTRUCTION
from tasks.ingestion.formats.rows.messages import MESSAGES
from tasks.ingestion.formats.rows.plain_text import TEXT
from tasks.ingestion.formats.rows.preference import PREFERENCE
from tasks.ingestion.formats.rows.prompt_completion import PROMPT_COMPLETION
from tasks.ingestion.formats.rows.ranked import RANKED
from tasks.ingestion.formats.rows.rated import RATED
from tasks.ingestion.formats.rows.segments import SEGMENTS
from tasks.ingestion.formats.rows.sharegpt import SHAREGPT

FORMATS = (
    PREFERENCE,
    RATED,
    RANKED,
    MESSAGES,
    SHAREGPT,
    SEGMENTS,
    ALPACA,
    INSTRUCTION,
    PROMPT_COMPLETION,
    TEXT,
)
ROW_FORMATS = {form.name: form for form in FORMATS}
