"""Which rows are executable: their functions pass their own doctests in the sandbox.

In: candidates, by row id. Out: `EXECUTABLE`, one entry for each row that passed, with the problem
that it makes where it makes one. A problem counts only if the tests pass on the function itself,
judged just as a model's answer would be, and fail on an empty body.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from tasks.core.progress import report
from tasks.core.sandbox import PASS, Job, Sandbox
from tasks.core.tables import read_batches
from tasks.ingestion.doctests import RUNNER, Candidate, Problem

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
Entry = tuple[str, int, str, str, str, str]


def spooled(row_id: str, candidate: Candidate) -> tuple[str | int, ...]:
    """A candidate as a row of `CANDIDATES`."""
    c, p = candidate, candidate.problem or NO_PROBLEM
    fields = (p.prompt, p.entry_point, p.canonical_solution, p.test)
    return (row_id, c.line, c.examples, c.program, *fields)


def judge_all(
    spool: Path, rows: Path, sandbox: Sandbox, timeout_s: float, counts: Counter[str]
) -> Iterator[Entry]:
    """Judge the candidates whose rows are there, a batch at a time.

    Args:
        spool: `CANDIDATES`.
        rows: Rows that were kept of the sources.
        sandbox: Where programs run.
        timeout_s: Wall time of one program.
        counts: Verdicts are added here.

    Yields:
        Entries of `EXECUTABLE`.
    """
    wanted = {i for t in read_batches(spool, 4096, ["row_id"]) for i in t["row_id"].to_pylist()}
    there = {
        i for t in read_batches(rows, 4096, ["row_id"]) for i in t["row_id"].to_pylist()
    } & wanted
    done = 0
    for table in read_batches(spool, BATCH):
        batch = [_candidate(row) for row in table.to_pylist() if row["row_id"] in there]
        yield from judge(batch, sandbox, timeout_s, counts)
        done += len(batch)
        report("doctests", done, len(there))


def _candidate(row: dict[str, str | int]) -> tuple[str, Candidate]:
    fields = [str(row[name]) for name in EXECUTABLE.names[2:]]
    problem = Problem(*fields) if row["test"] else None
    about = int(row["line"]), int(row["examples"]), str(row["program"])
    return str(row["row_id"]), Candidate(*about, problem)


def judge(
    rows: Sequence[tuple[str, Candidate]],
    sandbox: Sandbox,
    timeout_s: float,
    counts: Counter[str],
) -> list[Entry]:
    """Entries of `EXECUTABLE` for the rows that pass, in their order.

    Args:
        rows: (row id, candidate).
        sandbox: Where programs run.
        timeout_s: Wall time of one program.
        counts: Verdicts are added here.
    """
    jobs = [Job(c.program, RUNNER, _CHECK, timeout_s=timeout_s) for _, c in rows]
    outcomes = sandbox.run_all(jobs)
    passed = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome.verdict == PASS]
    counts["doctests: failed"] += len(rows) - len(passed)
    problems = _sound([c.problem for _, c in passed if c.problem], sandbox, timeout_s)
    return [_entry(row_id, candidate, problems) for row_id, candidate in passed]


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
    return [outcome.verdict == PASS for outcome in sandbox.run_all(jobs)]


def _entry(row_id: str, candidate: Candidate, sound: frozenset[Problem]) -> Entry:
    problem = candidate.problem
    p = problem if problem in sound and problem else NO_PROBLEM
    fields = (p.prompt, p.entry_point, p.canonical_solution, p.test)
    return (row_id, candidate.examples, *fields)
