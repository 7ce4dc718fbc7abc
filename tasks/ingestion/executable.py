"""Which rows are executable: their functions pass their own doctests in the sandbox.

In: candidates, by row id. Out: `EXECUTABLE`, one entry for each row that passed, with the problem
that it makes where it makes one. A problem counts only if the tests pass on the function itself,
judged just as a model's answer would be, and fail on an empty body.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.core.rows.parquet import read_batches
from tasks.core.rows.row_cache import fill, opened
from tasks.core.rows.row_cache_file import Values
from tasks.core.sandbox import PASS, Job, Sandbox
from tasks.core.stage import Work
from tasks.ingestion.languages.python_doctests import RUNNER, Candidate, Problem

BATCH = 64
CANDIDATES = pa.schema(
    [
        ("row_id", pa.string()),
        ("line", pa.int32()),
        ("examples", pa.int32()),
        ("program", pa.string()),
        ("prompt", pa.string()),
        ("entry_point", pa.string()),
        ("canonical_solution", pa.string()),
        ("test", pa.string()),
    ]
)

EXECUTABLE = pa.schema(
    [
        ("row_id", pa.string()),
        ("examples", pa.int32()),  # doctests passed
        # the row as a problem in HumanEval's form; all "" where it makes none
        ("prompt", pa.string()),
        ("entry_point", pa.string()),
        ("canonical_solution", pa.string()),
        ("test", pa.string()),
    ]
)
NO_PROBLEM = Problem("", "", "", "")
PROBLEM = ["prompt", "entry_point", "canonical_solution", "test"]
PROGRAMS = ["program", *PROBLEM]
VERDICTS = pa.schema([("passes", pa.bool_()), ("is_problem", pa.bool_())])
Entry = tuple[str, int, str, str, str, str]


def spooled(row_id: str, candidate: Candidate) -> tuple[str | int, ...]:
    """A candidate as a row of `CANDIDATES`."""
    c, p = candidate, candidate.problem or NO_PROBLEM
    fields = (p.prompt, p.entry_point, p.canonical_solution, p.test)
    return (row_id, c.line, c.examples, c.program, *fields)


def judge_all(
    spool: Path,
    rows: Path,
    sandbox: Sandbox,
    timeout_s: float,
    counts: Counter[str],
    work: Work,
) -> Iterator[Entry]:
    """Judge the candidates whose rows are there; one that an earlier run has judged is not run
    again.

    Args:
        spool: `CANDIDATES`.
        rows: Rows that were kept of the sources.
        sandbox: Where programs run.
        timeout_s: Wall time of one program.
        counts: Verdicts are added here.
        work: Of the stage.

    Yields:
        Entries of `EXECUTABLE`.
    """
    there = pa.concat_arrays(
        [pa.array([], pa.string())]
        + [t["row_id"].combine_chunks() for t in read_batches(rows, 4096, ["row_id"])]
    )

    def wanted() -> Iterator[pa.Table]:
        for table in read_batches(spool, BATCH):
            yield table.filter(pc.is_in(table["row_id"], value_set=there))

    total = sum(len(table) for table in wanted())
    with opened(work, timeout_s, VERDICTS, np.uint8, part="doctests") as shards:
        fill(
            shards,
            (table.select(PROGRAMS) for table in wanted()),
            partial(_judge, sandbox, timeout_s),
            pa.Table.to_pylist,
            work,
            workers=1,  # the sandbox runs its own
            batch_rows=BATCH,
            rows_for_processes=1,
            progress=("doctests", total),
        )
        verdicts = shards.table(VERDICTS.names)
    first = 0
    for table in wanted():
        judged = verdicts.slice(first, len(table)).to_pylist()
        first += len(table)
        for row, verdict in zip(table.to_pylist(), judged, strict=True):
            if verdict["passes"]:
                yield _entry(row, verdict["is_problem"])
            else:
                counts["doctests: failed"] += 1


def _judge(sandbox: Sandbox, timeout_s: float, rows: Sequence[Mapping[str, Any]]) -> Values:
    """`VERDICTS` of some candidates (`PROGRAMS`)."""
    jobs = [Job(row["program"], RUNNER, _CHECK, timeout_s=timeout_s) for row in rows]
    passes = [outcome.status == PASS for outcome in sandbox.run_all(jobs)]
    problems = [Problem(*(row[name] for name in PROBLEM)) if row["test"] else None for row in rows]
    tried = [p for p, good in zip(problems, passes, strict=True) if p and good]
    sound = _sound(tried, sandbox, timeout_s)
    are_problems = [good and p in sound for p, good in zip(problems, passes, strict=True)]
    nothing = np.zeros(len(rows), dtype=np.int64)
    table = pa.table([passes, are_problems], schema=VERDICTS)
    return Values(table, np.empty(0, dtype=np.uint8), nothing)


_CHECK = f"told = {RUNNER}()\nassert told == '', told"


def _sound(problems: Sequence[Problem], sandbox: Sandbox, timeout_s: float) -> frozenset[Problem]:
    """Problems whose tests pass on their own solution and fail on an empty body."""
    solved = _run(problems, [p.canonical_solution for p in problems], sandbox, timeout_s)
    whole = [p for p, passes in zip(problems, solved, strict=True) if passes]
    empty = _run(whole, ["    pass\n"] * len(whole), sandbox, timeout_s)
    return frozenset(p for p, passes in zip(whole, empty, strict=True) if not passes)


def _run(
    problems: Sequence[Problem], bodies: Sequence[str], sandbox: Sandbox, timeout_s: float
) -> list[bool]:
    jobs = [
        Job(p.prompt + body, p.entry_point, f"{p.test}\ncheck({p.entry_point})", "", timeout_s)
        for p, body in zip(problems, bodies, strict=True)
    ]
    return [outcome.status == PASS for outcome in sandbox.run_all(jobs)]


def _entry(row: Mapping[str, Any], is_problem: bool) -> Entry:
    problem = (row[name] if is_problem else "" for name in PROBLEM)
    return (row["row_id"], row["examples"], *problem)
