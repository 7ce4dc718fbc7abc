"""All row formats. A new one is one module that defines a `RowFormat` and one entry here."""

from tasks.ingestion.formats.rows.instruction import INSTRUCTION

ROW_FORMATS = {form.name: form for form in (INSTRUCTION,)}
