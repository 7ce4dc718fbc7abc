"""All file formats, and the choice of the one that reads a file: by its name, whose ending may be
followed by that of a compression; by its content where formats share it or the name says nothing.

A new format is one module that defines a `FileFormat` and one entry in `FILE_FORMATS`. Formats that
share an extension are tried in this order; the last one needs no `recognizes`.
"""

import codecs
import json
from collections.abc import Collection
from pathlib import Path

from tasks.core.languages.authorship import LFS_POINTER
from tasks.ingestion.formats.files.compression import (
    DAMAGED,
    ENDINGS,
    is_compressed,
    open_bytes,
    open_text,
    plain_name,
)
from tasks.ingestion.formats.files.csv_table import CSV
from tasks.ingestion.formats.files.json_array import JSON_ARRAY
from tasks.ingestion.formats.files.json_table import JSON_TABLE
from tasks.ingestion.formats.files.jsonl import JSONL
from tasks.ingestion.formats.files.parquet import PARQUET
from tasks.ingestion.formats.files.protocol import FileFormat, Records, UnreadableRecord
from tasks.ingestion.formats.files.text_lines import MAX_RECORD

FILE_FORMATS = (JSON_TABLE, JSONL, JSON_ARRAY, CSV, PARQUET)
EXTENSIONS = tuple(dict.fromkeys(ending for form in FILE_FORMATS for ending in form.extensions))

PACKED_EXTENSIONS = tuple(f"{ending}{packed}" for ending in EXTENSIONS for packed in ENDINGS)

NOT_UTF8_SIGNATURES = (
    (0, codecs.BOM_UTF32_LE, "UTF-32 text"),
    (0, codecs.BOM_UTF32_BE, "UTF-32 text"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (257, b"ustar", "a tar archive"),
)


def file_format(path: Path) -> FileFormat:
    """The format of a file.

    Raises:
        OSError: The file can't be read.
    """
    ending = Path(plain_name(path.name)).suffix
    forms = [form for form in FILE_FORMATS if ending in form.extensions]
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return PARQUET
    if not forms or (forms == [CSV] and _begins_with_an_object(path)):
        forms = [JSON_TABLE, JSONL, JSON_ARRAY]
    *shared, last = forms
    return next((form for form in shared if form.recognizes and form.recognizes(path)), last)


def _begins_with_an_object(path: Path) -> bool:
    """Whether the first line of a file is a JSON object."""
    with open_text(path) as file:
        line = file.readline(MAX_RECORD).strip()
    try:
        return line.startswith('{"') and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def archive_of(path: Path) -> str:
    """What a file is, if its content is neither text in UTF-8 or UTF-16 nor a known format.

    Raises:
        OSError: The file can't be read.
    """
    with open_bytes(path) as file:
        start = file.read(512)
    found = (name for at, mark, name in NOT_UTF8_SIGNATURES if start.startswith(mark, at))
    return next(found, "")


def is_data(path: Path) -> bool:
    """Whether a file of any name has the content of JSON or Parquet."""
    try:
        with open_bytes(path) as file:
            start = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    except (OSError, *DAMAGED):
        return False
    return start.startswith((b"PAR1", b"{", b"["))


def column_names(path: Path) -> list[str]:
    """Names of a file's columns where its format has a schema; [] where only records have them."""
    try:
        return file_format(path).column_names(path) or []
    except (OSError, *DAMAGED):
        return []  # reported when the records are read


def read_records(path: Path, columns: Collection[str] | None) -> Records:
    """Yield the records of a file.

    Args:
        path: The file.
        columns: Names that will be used; None: all.
    """
    try:
        form = file_format(path)
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                yield UnreadableRecord(0, "the file is a pointer of Git LFS, not its content", "")
                return
        if form.is_text:
            if name := archive_of(path):
                yield UnreadableRecord(0, f"the file is {name}, expected UTF-8 text", "")
                return
        elif is_compressed(path):
            problem = "the file is compressed, which is read for text only"
            yield UnreadableRecord(0, problem, "")
            return
        yield from form.read(path, columns)
    except DAMAGED as error:
        yield UnreadableRecord(0, f"the compressed data is damaged: {error}", "")
    except OSError as error:
        reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
        yield UnreadableRecord(0, f"the file can't be read: {reason}", "")
