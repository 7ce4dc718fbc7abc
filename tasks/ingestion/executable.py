"""Rows that are executable: their functions pass their own doctests in the sandbox.

Input: candidates, by row id. Output: `EXECUTABLE`, one entry for each row that passed, with the
function as a problem where it can be one. A problem counts only if the tests pass on the function
itself, graded just as a model's answer would be, and fail on an empty body.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.core.languages.protocol import RUNNER
from tasks.core.rows.parquet import read_batches
from tasks.core.rows.row_cache import by_content, fill, opened
from tasks.core.rows.row_cache_file import Values
from tasks.core.sandbox import PASS, Job, Sandbox
from tasks.core.stage import Work

BATCH = 64
PROBLEM = ["prompt", "entry_point", "canonical_solution", "test"]
# a row id and the fields of `DoctestCandidate`
CANDIDATES = pa.schema(
    [
        ("row_id", pa.string()),
        ("line", pa.int32()),
        ("examples", pa.int32()),
        ("program", pa.string()),
        *((name, pa.string()) for name in PROBLEM),
    ]
)
EXECUTABLE = pa.schema(
    [
        ("row_id", pa.string()),
        ("examples", pa.int32()),  # doctests passed
        # the row as a problem in HumanEval's form; all "" where it is none
        *((name, pa.string()) for name in PROBLEM),
    ]
)
OUTCOMES = pa.schema([("passes", pa.bool_()), ("is_problem", pa.bool_())])


def run_doctests(
    candidates: Path,
    rows: Path,
    sandbox: Sandbox,
    timeout_s: float,
    counts: Counter[str],
    work: Work,
) -> Iterator[tuple[str | int, ...]]:
    """Run the candidates whose rows were kept; the outcomes of earlier runs are cached.

    Args:
        candidates: Parquet file of `CANDIDATES`.
        rows: Rows that were kept of the sources.
        sandbox: Where programs run.
        timeout_s: Wall time of one program.
        counts: Failures are added here.
        work: Of the stage.

    Yields:
        Entries of `EXECUTABLE`.
    """
    kept = pa.concat_arrays(
        [pa.array([], pa.string())]
        + [t["row_id"].combine_chunks() for t in read_batches(rows, 4096, ["row_id"])]
    )

    def batches() -> Iterator[pa.Table]:
        # read again for each pass: programs of all candidates may not fit into memory
        for table in read_batches(candidates, BATCH):
            yield table.filter(pc.is_in(table["row_id"], value_set=kept))

    total = sum(len(table) for table in batches())
    with opened(work, timeout_s, OUTCOMES, np.uint8, part="doctests") as shards:
        fill(
            shards,
            by_content(table.select(["program", *PROBLEM]) for table in batches()),
            partial(_run_batch, sandbox, timeout_s),
            pa.Table.to_pylist,
            work,
            workers=1,  # the sandbox has its own processes
            batch_rows=BATCH,
            rows_for_processes=1,
            progress=("doctests", total),
        )
        outcomes = shards.table(OUTCOMES.names)
    first = 0
    for table in batches():
        found = outcomes.slice(first, len(table)).to_pylist()
        first += len(table)
        for row, outcome in zip(table.to_pylist(), found, strict=True):
            if outcome["passes"]:
                problem = (row[name] if outcome["is_problem"] else "" for name in PROBLEM)
                yield (row["row_id"], row["examples"], *problem)
            else:
                counts["doctests: failed"] += 1


def _run_batch(sandbox: Sandbox, timeout_s: float, rows: Sequence[Mapping[str, Any]]) -> Values:
    """`OUTCOMES` of some candidates."""
    programs = [Job(row["program"], RUNNER, _CHECK, timeout_s=timeout_s) for row in rows]
    passes = _pass(sandbox, programs)
    problems = [i for i, row in enumerate(rows) if passes[i] and row["test"]]
    solutions = [_graded(rows[i], rows[i]["canonical_solution"], timeout_s) for i in problems]
    solved = [i for i, good in zip(problems, _pass(sandbox, solutions), strict=True) if good]
    empty = _pass(sandbox, [_graded(rows[i], "    pass\n", timeout_s) for i in solved])
    sound = {i for i, good in zip(solved, empty, strict=True) if not good}
    table = pa.table([passes, [i in sound for i in range(len(rows))]], schema=OUTCOMES)
    return Values(table, np.empty(0, dtype=np.uint8), np.zeros(len(rows), dtype=np.int64))


_CHECK = f"failure = {RUNNER}()\nassert failure == '', failure"


def _graded(problem: Mapping[str, Any], body: str, timeout_s: float) -> Job:
    """A problem's tests on a body for its function, as a model's answer is graded."""
    entry_point = problem["entry_point"]
    checks = f"{problem['test']}\ncheck({entry_point})"
    return Job(problem["prompt"] + body, entry_point, checks, "", timeout_s)


def _pass(sandbox: Sandbox, jobs: Sequence[Job]) -> list[bool]:
    return [outcome.status == PASS for outcome in sandbox.judge_all(jobs)]
