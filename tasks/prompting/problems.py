"""Held-out problems: executable rows as an evaluation set, problems.jsonl, in HumanEval's form.

One JSON object per line: `task_id` ("held-out/" and the row's id), `prompt` (what the function
needs, its signature and the prose of its docstring), `entry_point`, `canonical_solution`, and
`test`, the text that defines `check(candidate)`. The stage ingest has run each in the sandbox: the
solution passes its tests, an empty body does not. No split contains one of these rows, a near
duplicate of them, or a row that holds one of them (`decontaminate`).
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
    """Executable rows with tests, at most `at_most`, in the order of the rows.

    Args:
        path: `ingest.executable`.
        splits: Row id -> split, for the rows that may be taken; those of "test" come first.
        at_most: Number of problems.
        seed: Decides which rows of a split are taken.
    """
    entries = [
        entry
        for entry in pq.read_table(path).to_pylist()
        if entry["test"] and entry["row_id"] in splits
    ]
    ranked = sorted(
        entries,
        key=lambda e: (splits[e["row_id"]] != "test", hash_rank(seed, e["row_id"]), e["row_id"]),
    )
    chosen = {entry["row_id"] for entry in ranked[:at_most]}
    return [entry for entry in entries if entry["row_id"] in chosen]


def write_problems(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write problems as a JSONL file."""
    lines = [
        json.dumps(
            {"task_id": f"{SUITE}/{entry['row_id']}"} | {name: entry[name] for name in FIELDS}
        )
        for entry in entries
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
