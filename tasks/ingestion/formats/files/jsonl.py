"""JSON Lines: one JSON object per line; empty lines are skipped."""

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.ingestion.formats.files.protocol import (
    FileFormat,
    Records,
    UnreadableRecord,
    record_of_json,
)
from tasks.ingestion.formats.files.text_lines import numbered_lines, too_long


def _read(path: Path, _columns: Sequence[str]) -> Records:
    for number, line in _filled_lines(path):
        if line is None:
            yield UnreadableRecord(number, too_long(), "")
            continue
        try:
            # only the first line may begin with a byte order mark
            values = json.loads(line.decode() if number > 1 else line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            problem = f"byte {error.object[error.start]:#04x} is not UTF-8"
            yield UnreadableRecord(number, problem, line)
        except (ValueError, RecursionError) as error:
            yield UnreadableRecord(number, f"malformed JSON: {error}", line)
        else:
            yield record_of_json(number, values)


def _filled_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Lines that are not empty; None for one that is too long."""
    with path.open("rb") as file:
        for number, line in numbered_lines(file, (b"\n",)):
            text = line.removeprefix(codecs.BOM_UTF8) if line and number == 1 else line
            if text is None or (text and not text.isspace()):
                yield number, line


def _starts_with_object(path: Path) -> bool:
    """Whether the first line that is not empty is a whole JSON object."""
    for _, line in _filled_lines(path):
        if line is None:  # a JSON array may be one long line, so this one does not decide
            continue
        try:
            return isinstance(json.loads(line), dict)
        except (ValueError, RecursionError):
            return False
    return False


JSONL = FileFormat(
    name="json",
    extensions=(".jsonl", ".ndjson", ".json"),
    read=_read,
    recognizes=_starts_with_object,
)
