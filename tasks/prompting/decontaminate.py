"""Rows that hold a problem which is held out: looked for as filter looks for benchmarks, in four
layers, each with its evidence."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.decontamination import execution_match, text_match
from tasks.core.decontamination.ngrams import hash_words
from tasks.core.decontamination.problems import (
    Task,
    TaskSet,
    make_task,
    parse,
)
from tasks.core.decontamination.text_match import Hit, Index, Limits
from tasks.core.rows.parquet import read_batches
from tasks.core.stage import Work
from tasks.core.system.parallel import without_gc, worker_count
from tasks.core.tracking import track
from tasks.prompting.problems import SUITE

TEXTS = ["instruction", "input", "output"]
BATCH_ROWS = 1024
ROWS_FOR_PROCESSES = 5_000

Found = dict[int, list[Hit]]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows (`TEXTS`), the number of the first one, which of them are looked at, and for what."""

    rows: pa.Table
    first: int
    wanted: NDArray[np.bool_]
    tasks: TaskSet
    limits: Limits


def rows_with_problems(
    kept: Path,
    wanted: NDArray[np.bool_],
    problems: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    work: Work,
    workers: int,
) -> Found:
    """{row number: problems in the row, as far as they count}.

    Args:
        kept: `filter.kept`.
        wanted: Rows that are looked at.
        problems: From `choose_problems`.
        settings: The section `filter.decontamination`.
        work: Of the stage: how batches are run.
        workers: Of the settings.
    """
    tasks = tuple(_task(problem) for problem in problems)
    looked_for = TaskSet.of(tasks)
    if looked_for is None:
        return {}
    limits = Limits(**{f.name: settings[f.name] for f in dataclasses.fields(Limits)})
    in_use = worker_count(workers) if len(wanted) >= ROWS_FOR_PROCESSES else 1
    batches = _batches(kept, wanted, looked_for, limits)
    found: Found = {}
    total = -(-len(wanted) // BATCH_ROWS)
    for hits in track(work.run_batches(look, batches, in_use), "held-out problems", total):
        found |= hits
    if settings["execution"]:
        rest = wanted & ~np.isin(np.arange(len(wanted)), list(found))
        rows = read_batches(kept, BATCH_ROWS, ["row_id", "output"])
        ran = execution_match.find(rows, rest, tasks, settings, worker_count(workers))
        found |= {row: [hit] for row, hit in ran.items()}
    return found


def _task(problem: Mapping[str, Any]) -> Task:
    fields = (problem[n] for n in ("prompt", "canonical_solution", "test", "entry_point"))
    return make_task(f"{SUITE}/{problem['row_id']}", *fields)


def _batches(
    kept: Path, wanted: NDArray[np.bool_], tasks: TaskSet, limits: Limits
) -> Iterable[Batch]:
    first = 0
    for table in read_batches(kept, BATCH_ROWS, TEXTS):
        yield Batch(table, first, wanted[first : first + len(table)], tasks, limits)
        first += len(table)


def look(batch: Batch) -> Found:
    """Problems in the rows of a batch, by what needs no sandbox."""
    index: Index = text_match.build_index(batch.tasks, batch.limits)
    rows = batch.rows.to_pylist()
    texts = ["\n".join(row[name] for name in TEXTS) for row in rows]
    found: Found = defaultdict(list)
    for place, hits in enumerate(text_match.find_texts(texts, hash_words(texts), index)):
        found[place] += [h for h in hits if _counts(h, batch.limits)]
    with without_gc():
        for place, row in enumerate(rows if index.shapes else ()):
            own = [row[name] for name in TEXTS]
            found[place] += text_match.find_shape(own, parse(row["output"]), index)
    return {batch.first + n: hits for n, hits in found.items() if hits and batch.wanted[n]}


def _counts(hit: Hit, limits: Limits) -> bool:
    return hit.layer != "ngrams" or hit.value >= limits.max_containment


def write_hits(path: Path, row_ids: Sequence[str], found: Found) -> None:
    """Write what was found as a JSONL file, in the order of the rows."""
    lines = [
        json.dumps({"row_id": row_ids[row], **dataclasses.asdict(hit)})
        for row, hits in sorted(found.items())
        for hit in hits
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
