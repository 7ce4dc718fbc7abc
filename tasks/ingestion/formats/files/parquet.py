"""Parquet, and rows of Arrow tables as records.

pyarrow is imported where it is used: `finetune plan` imports the registry for the extensions, and
must not import pyarrow.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.core.progress import say
from tasks.core.system.escape_text import first_line
from tasks.ingestion.formats.files.protocol import (
    FileFormat,
    Record,
    Records,
    UnreadableRecord,
    duplicate_column,
)
from tasks.ingestion.rows import Unfit

# whichever is less; repeated values, which are stored once, count once in the sizes of a file
BATCH_ROWS, BATCH_BYTES = 256, 16 << 20
PAGE_ROWS, LARGE_PAGE_BYTES = 1024, 512 << 20  # of the first page of a row group, as pyarrow writes
REWRITE = (
    "python -c \"import pyarrow.parquet as p; f = p.ParquetFile('FILE'); w = p.ParquetWriter("
    "'NEW', f.schema_arrow); [w.write_batch(b) for b in f.iter_batches(16)]; w.close()\""
)
READ_BYTES = 1 << 20  # of a column that are read at once, instead of its whole part of a row group


def _read(path: Path, columns: Collection[str] | None) -> Records:
    """Rows, a batch at a time; of a damaged row group, the batches before the damage."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False)
    except (pa.ArrowException, ValueError) as error:
        yield UnreadableRecord(0, f"not a Parquet file: {first_line(error)}", "")
        return
    with file:
        names = file.schema_arrow.names
        if problem := duplicate_column(names, names if columns is None else columns):
            yield UnreadableRecord(0, problem, "")
            return
        wanted = [name for name in names if columns is None or name in columns]
        before = 0
        if columns is not None and (note := _large_pages(path, file)):
            say(note)
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            number = before
            try:
                batch_rows = _batch_rows(file, group)
                for batch in file.iter_batches(batch_rows, [group], wanted, use_threads=False):
                    yield from records_of_table(batch, number)
                    number += batch.num_rows
            except (pa.ArrowException, ValueError, OSError) as error:
                lost = f"rows {number + 1} to {before + rows} are left out"
                problem = f"damaged Parquet: {first_line(error)}; {lost}"
                yield UnreadableRecord(number + 1, problem, "")
            before += rows


def _large_pages(path: Path, file: Any) -> str:
    """A note on a file whose pages take much memory; "" if they don't. Writers count the values of
    a page before its bytes, and every reader decodes a page as a whole."""
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    sizes = [g.total_byte_size * min(1, PAGE_ROWS / max(g.num_rows, 1)) for g in groups]
    if max(sizes, default=0) < LARGE_PAGE_BYTES:
        return ""
    return (
        f"{path.name}: a page of this file may take {max(sizes) / 2**30:.1f} GiB, and reading it "
        "takes twice that memory. If that is too much, rewrite the file with small pages on a "
        "machine with more memory: "
        f"`{REWRITE}`"
    )


def _batch_rows(file: Any, group: int) -> int:
    """Rows of a batch of about `BATCH_BYTES`, by the mean size of the row group's rows with all
    columns. The sizes of single columns are not read: pyarrow aborts the process where the
    metadata of a column is damaged."""
    about = file.metadata.row_group(group)
    row_bytes = about.total_byte_size // max(about.num_rows, 1)
    return int(max(1, min(BATCH_ROWS, BATCH_BYTES // max(row_bytes, 1))))


def records_of_table(table: Any, before: int) -> Iterator[Record]:
    """Rows of an Arrow table or batch; `before` is the number of the file's rows before it."""
    names = table.schema.names
    values = [_values(table.column(i)) for i in range(len(names))]
    for row in range(table.num_rows):
        yield Record(before + row + 1, {n: v[row] for n, v in zip(names, values, strict=True)})


def _values(column: Any) -> list[Any]:
    """Values of an Arrow column. Text that is not UTF-8 is decoded with surrogates, and a value
    that Python can't represent becomes an `Unfit`: both are reported, by row, where they are
    used as text. A field without a value is left out of a struct, where JSON would not have it."""
    import pyarrow as pa

    if any(map(column.type.equals, (pa.binary(), pa.large_binary(), pa.binary_view()))):
        # text of writers that do not mark it as such
        return [
            v if v is None else v.decode("utf-8", "surrogateescape") for v in column.to_pylist()
        ]
    try:
        values: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    except UnicodeDecodeError:
        if not pa.types.is_nested(column.type):
            raw = column.cast(pa.large_binary()).to_pylist()
            return [v if v is None else v.decode("utf-8", "surrogateescape") for v in raw]
        values = [_value(one) for one in column]
    except (pa.ArrowException, ValueError, OverflowError):
        values = [_value(one) for one in column]
    return list(map(_without_nulls, values)) if pa.types.is_nested(column.type) else values


def _value(scalar: Any) -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py(maps_as_pydicts="lossy")
    except UnicodeDecodeError:
        return Unfit("holds text that is not valid UTF-8")
    except (pa.ArrowException, ValueError, OverflowError):
        return Unfit("can't be represented, expected text")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(inner) for k, inner in value.items() if inner is not None}
    return list(map(_without_nulls, value)) if isinstance(value, list) else value


def _column_names(path: Path) -> list[str] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, ValueError, OSError):
        return None  # reported when the rows are read


PARQUET = FileFormat(
    name="parquet",
    extensions=(".parquet",),
    read=_read,
    is_text=False,
    column_names=_column_names,
)
