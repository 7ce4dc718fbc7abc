"""Executable rows held out as an evaluation set: problems.jsonl, in HumanEval's form.

One JSON object a line: `task_id` ("held-out/" and the row's id), `prompt` (what the function needs,
its signature and the prose of its docstring), `entry_point`, `canonical_solution`, and `test`, the
text that defines `check(candidate)`. Each was judged when it was made: the solution passes its
tests in the sandbox, an empty body does not. None of these rows is left in any split, and none that
is tied to them by duplicates or holds one of them (`contaminated`).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tasks.core.rows.hash_rank import hash_rank

SUITE = "held-out"
FIELDS = ("prompt", "entry_point", "canonical_solution", "test")


def choose_problems(
    path: Path, splits: Mapping[str, str], at_most: int, seed: int
) -> list[dict[str, Any]]:
    """Entries of the executable rows that make a problem, at most so many, in the order of the
    rows.

    Args:
        path: `ingest.executable`.
        splits: Row id -> split, for the rows that may be taken; those of "test" come first.
        at_most: How many.
        seed: Chooses among the others.
    """
    entries = [
        entry
        for entry in pq.read_table(path).to_pylist()
        if entry["test"] and entry["row_id"] in splits
    ]
    ranked = sorted(
        entries,
        key=lambda e: (
            splits[e["row_id"]] != "test",
            hash_rank(seed, e["row_id"]),
            e["row_id"],
        ),
    )
    chosen = {entry["row_id"] for entry in ranked[:at_most]}
    return [entry for entry in entries if entry["row_id"] in chosen]


def write_problems(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write entries as a JSONL file."""
    lines = [
        json.dumps(
            {"task_id": f"{SUITE}/{entry['row_id']}"} | {name: entry[name] for name in FIELDS}
        )
        for entry in entries
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
