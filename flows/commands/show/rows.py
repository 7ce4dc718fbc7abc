"""`finetune show`: one row of a table, and unreadable records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.system.escape_text import escape_controls

MAX_UNREADABLE = 20  # entries of the ledger that are shown


def find_row(table: Path, wanted: str, is_number: bool = False) -> dict[str, Any] | None:
    """The row with this number or row id; None if there is none.

    Reads one row group in full, and only the ids of the others.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(table) as file:
        left = int(wanted) if is_number else _place(file, wanted)
        for group in range(file.num_row_groups if left is not None else 0):
            rows = file.metadata.row_group(group).num_rows
            if left < rows:
                return dict(file.read_row_group(group).slice(left, 1).to_pylist()[0])
            left -= rows
    return None


def numbers(tables: Mapping[str, Path]) -> str:
    """Remedy for an unknown row: the range of row numbers."""
    import pyarrow.parquet as pq

    for entry, table in tables.items():
        last = pq.read_metadata(table).num_rows - 1
        return f"Give a number from 0 to {last:,} (a row of {entry}), or a row id."
    return "Give a row id."


def _place(file: Any, row_id: str) -> int | None:
    """Number of the row with this id."""
    import pyarrow.compute as pc

    if "row_id" not in file.schema_arrow.names:
        return None
    before = 0
    for batch in file.iter_batches(columns=["row_id"]):
        if (place := pc.index(batch.column(0), row_id).as_py()) >= 0:
            return before + int(place)
        before += batch.num_rows
    return None


def unreadable_lines(ledger: Path) -> list[str]:
    """The first unreadable records, by source, file and line."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(ledger) as file:
        total = file.metadata.num_rows
        first = next(file.iter_batches(MAX_UNREADABLE)).to_pylist() if total else []
    lines = ["", f"unreadable: {total:,}"] if total else ["", "unreadable: nothing"]
    for entry in first:
        place = f":{entry['line']}" if entry["line"] else ""
        lines.append(
            escape_controls(f"  {entry['source']}  {entry['path']}{place}  {entry['problem']}")
        )
    more = total - len(first)
    return lines + ([f"  and {more:,} more in {ledger.name}"] if more else [])
