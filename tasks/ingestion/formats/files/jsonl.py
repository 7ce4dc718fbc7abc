"""JSON Lines: one JSON object per line; empty lines are skipped."""

import json
from collections.abc import Collection
from pathlib import Path

from tasks.ingestion.formats.files import text_lines
from tasks.ingestion.formats.files.compression import open_bytes
from tasks.ingestion.formats.files.json_layout import is_json_lines
from tasks.ingestion.formats.files.protocol import (
    FileFormat,
    Record,
    Records,
    UnreadableRecord,
    not_an_object,
)

# also the record separator of RFC 7464, and the mark of a file that was appended to another one
BLANK = " \t\r\n\x1e\ufeff"


def _read(path: Path, _columns: Collection[str] | None) -> Records:
    # one loop with few calls per line: this is the most common format, and the calls of
    # json.loads around the decoder take a tenth of the time of a short row
    decode, limit = json.JSONDecoder().raw_decode, text_lines.MAX_RECORD
    with open_bytes(path) as file:
        number = 0
        while line := file.readline(limit):
            number += 1
            if len(line) >= limit and not line.endswith(b"\n"):
                while (rest := file.readline(limit)) and not rest.endswith(b"\n"):
                    pass
                yield UnreadableRecord(number, text_lines.too_long(), "")
                continue
            try:
                text = line.decode().strip(BLANK)
                if not text:
                    continue
                values, end = decode(text)
                if end != len(text) and text[end:] != ",":  # lines of an array without brackets
                    raise json.JSONDecodeError("Extra data", text, end)
            except UnicodeDecodeError as error:
                problem = f"byte {error.object[error.start]:#04x} is not UTF-8"
                yield UnreadableRecord(number, problem, line)
            except (ValueError, RecursionError) as error:
                yield UnreadableRecord(number, f"malformed JSON: {error}", line)
            else:
                if isinstance(values, dict):
                    yield Record(number, values)
                else:
                    yield not_an_object(number, values)


JSONL = FileFormat(
    name="json", extensions=(".jsonl", ".ndjson", ".json"), read=_read, recognizes=is_json_lines
)
