"""Rows that hold a held-out problem: the same four layers as for benchmarks in the stage filter.

The filter cannot do this, because the problems are chosen from the rows that it keeps.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.decontamination import execution_match
from tasks.core.decontamination.ngrams import hash_words
from tasks.core.decontamination.problem_index import Hit, MatchLimits, build_index
from tasks.core.decontamination.problems import BenchmarkProblem, PackedProblems, make_problem
from tasks.core.decontamination.syntax_match import find_shape
from tasks.core.decontamination.text_match import find_texts
from tasks.core.languages.python.source import parse_python
from tasks.core.rows.parquet import BATCH_ROWS, read_batches
from tasks.core.stage import Work
from tasks.core.system.parallel import without_gc, worker_count
from tasks.core.tracking import track
from tasks.prompting.problems import SUITE

if TYPE_CHECKING:
    from tasks.core.settings.filter import DecontaminationSettings

TEXTS = ["instruction", "input", "output"]
ROWS_FOR_PROCESSES = 5_000  # fewer rows are searched sooner than worker processes start

HitsByRow = dict[int, list[Hit]]


@dataclass(frozen=True)
class RowsToSearch:
    """A batch of rows (`TEXTS`) for `search`.

    Attributes:
        rows: The texts.
        first: Number of the first row.
        wanted: Which of them are searched.
        problems: What is searched for.
        limits: Limits of the layers.
    """

    rows: pa.Table
    first: int
    wanted: NDArray[np.bool_]
    problems: PackedProblems
    limits: MatchLimits


def rows_with_problems(
    kept: Path,
    wanted: NDArray[np.bool_],
    entries: Sequence[Mapping[str, Any]],
    settings: "DecontaminationSettings",
    work: Work,
    workers: int,
) -> HitsByRow:
    """{row number: problems that the row holds}.

    Args:
        kept: `filter.kept`.
        wanted: Rows that are searched.
        entries: The held-out problems, from `choose_problems`.
        settings: The section `filter.decontamination`.
        work: Of the stage; runs the batches.
        workers: `hardware.workers`.
    """
    problems = tuple(_problem(entry) for entry in entries)
    packed = PackedProblems.of(problems)
    if packed is None:
        return {}
    limits = MatchLimits.of(settings)

    def batches() -> Iterator[RowsToSearch]:
        first = 0
        for table in read_batches(kept, BATCH_ROWS, TEXTS):
            part = wanted[first : first + len(table)]
            yield RowsToSearch(table, first, part, packed, limits)
            first += len(table)

    in_use = worker_count(workers) if len(wanted) >= ROWS_FOR_PROCESSES else 1
    total = -(-len(wanted) // BATCH_ROWS)
    found: HitsByRow = {}
    for hits in track(work.run_batches(search, batches(), in_use), "held-out problems", total):
        found |= hits
    rest = wanted & ~np.isin(np.arange(len(wanted)), list(found))
    outputs = read_batches(kept, BATCH_ROWS, ["row_id", "output"])
    executed = execution_match.find(outputs, rest, problems, settings, worker_count(workers))
    return found | {row: [hit] for row, hit in executed.items()}


def _problem(entry: Mapping[str, Any]) -> BenchmarkProblem:
    fields = (entry[n] for n in ("prompt", "canonical_solution", "test", "entry_point"))
    return make_problem(f"{SUITE}/{entry['row_id']}", *fields)


def search(batch: RowsToSearch) -> HitsByRow:
    """Problems in the rows of a batch, by the layers that need no sandbox."""
    index = build_index(batch.problems, batch.limits)
    rows = batch.rows.to_pylist()
    texts = ["\n".join(row[name] for name in TEXTS) for row in rows]
    hits = find_texts(texts, hash_words(texts), index)
    found: HitsByRow = {}
    with without_gc():
        for place in np.flatnonzero(batch.wanted).tolist():
            own = [rows[place][name] for name in TEXTS]
            source = parse_python(own[-1])[0] if index.shapes else None
            candidates = hits[place] + find_shape(own, source, index)
            counted = [hit for hit in candidates if hit.counts(batch.limits.max_containment)]
            if counted:
                found[batch.first + place] = counted
    return found


def write_hits(path: Path, row_ids: pa.Array, found: HitsByRow) -> None:
    """Write the hits as a JSONL file, in the order of the rows."""
    lines = [
        json.dumps(
            {
                "row_id": row_ids[row].as_py(),
                "layer": hit.layer,
                "task_id": hit.problem_id,
                "value": hit.value,
                "evidence": hit.evidence,
            }
        )
        for row, hits in sorted(found.items())
        for hit in hits
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
