"""All file formats, and the choice of the one that reads a file.

A new format is one module that defines a `FileFormat` and one entry in `FILE_FORMATS`. Formats that
share an extension are tried in this order; the last one needs no `recognizes`.
"""

import codecs
from collections.abc import Sequence
from pathlib import Path

from tasks.ingestion.formats.files.csv_table import CSV
from tasks.ingestion.formats.files.json_array import JSON_ARRAY
from tasks.ingestion.formats.files.jsonl import JSONL
from tasks.ingestion.formats.files.parquet import PARQUET
from tasks.ingestion.formats.files.protocol import FileFormat, Records, UnreadableRecord

FILE_FORMATS = (JSONL, JSON_ARRAY, CSV, PARQUET)
EXTENSIONS = tuple(dict.fromkeys(ending for form in FILE_FORMATS for ending in form.extensions))

# UTF-32 first: its little-endian mark begins with that of UTF-16
NOT_UTF8_SIGNATURES = (
    (codecs.BOM_UTF32_LE, "UTF-32 text"),
    (codecs.BOM_UTF32_BE, "UTF-32 text"),
    (codecs.BOM_UTF16_LE, "UTF-16 text"),
    (codecs.BOM_UTF16_BE, "UTF-16 text"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
)


def file_format(path: Path) -> FileFormat:
    """The format of a file with one of the `EXTENSIONS`: by its content where formats share it.

    Raises:
        OSError: The file can't be read.
    """
    *shared, last = [form for form in FILE_FORMATS if path.suffix.lower() in form.extensions]
    return next((form for form in shared if form.recognizes and form.recognizes(path)), last)


def read_records(path: Path, columns: Sequence[str]) -> Records:
    """Yield the records of a file.

    Args:
        path: File with one of the `EXTENSIONS`.
        columns: Names that will be used.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
        form = file_format(path)
        found = [name for mark, name in NOT_UTF8_SIGNATURES if start.startswith(mark)]
        if found and form.is_text:
            yield UnreadableRecord(0, f"the file is {found[0]}, wanted UTF-8 text", "")
            return
        yield from form.read(path, columns)
    except OSError as error:
        reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
        yield UnreadableRecord(0, f"the file can't be read: {reason}", "")
