"""Parquet, and rows of Arrow tables as records.

pyarrow is imported where it is used: `finetune plan` imports the registry for the extensions, and
must not import pyarrow.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from tasks.ingestion.formats.files.protocol import (
    FileFormat,
    Record,
    Records,
    UnreadableRecord,
    duplicate_column,
)

BATCH_ROWS = 1024


class Unfit:
    """Replaces a value that Python can't represent, such as a date in the year 40000; its name is
    part of the ledger's message."""

    def __repr__(self) -> str:
        return "<not representable>"  # stored in the ledger; the default has a memory address


def _read(path: Path, columns: Collection[str] | None) -> Records:
    """Rows, a batch at a time; of a damaged row group, the batches before the damage."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, ValueError) as error:
        yield UnreadableRecord(0, f"not a Parquet file: {_first_line(error)}", "")
        return
    with file:
        names = file.schema_arrow.names
        if problem := duplicate_column(names, columns):
            yield UnreadableRecord(0, problem, "")
            return
        wanted = [name for name in names if columns is None or name in columns]
        before = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            number = before
            try:
                for batch in file.iter_batches(BATCH_ROWS, [group], wanted):
                    yield from records_of_table(batch, number)
                    number += batch.num_rows
            except (pa.ArrowException, ValueError, OSError) as error:
                lost = f"rows {number + 1} to {before + rows} are left out"
                problem = f"damaged Parquet: {_first_line(error)}; {lost}"
                yield UnreadableRecord(number + 1, problem, "")
            before += rows


def records_of_table(table: Any, before: int) -> Iterator[Record]:
    """Rows of an Arrow table or batch; `before` is the number of the file's rows before it."""
    names = table.schema.names
    values = [_values(table.column(i)) for i in range(len(names))]
    for row in range(table.num_rows):
        yield Record(before + row + 1, {n: v[row] for n, v in zip(names, values, strict=True)})


def _values(column: Any) -> list[Any]:
    """Values of an Arrow column. Text that is not UTF-8 is decoded with surrogates, and a value
    that Python can't represent becomes an `Unfit`: both are reported, by row, where they are
    used as text."""
    import pyarrow as pa

    try:
        values: list[Any] = column.to_pylist()
        return values
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary()).to_pylist()
        return [v if v is None else v.decode("utf-8", "surrogateescape") for v in raw]
    except (pa.ArrowException, ValueError, OverflowError):
        return [Unfit()] * len(column)


def _column_names(path: Path) -> list[str] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, ValueError, OSError):
        return None  # reported when the rows are read


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


PARQUET = FileFormat(
    name="parquet",
    extensions=(".parquet",),
    read=_read,
    is_text=False,
    column_names=_column_names,
)
