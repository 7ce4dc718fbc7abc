"""Stage `prompt`: kept rows -> train.parquet, validation.parquet and test.parquet.

Ids and projects are read first and every row gets its split; then the texts are formatted a batch
at a time, so memory stays flat as the data grows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core import schemas
from tasks.core.config import View
from tasks.core.errors import PipelineError
from tasks.core.progress import report
from tasks.core.stage import Summary, Work
from tasks.core.templates import complete, render
from tasks.prompting.split import SPLITS, choose, split_of

BATCH_ROWS = 4096
DROPPED = -1


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """See the module."""
    settings = config.prompt
    kept = inputs["filter.kept"]
    names = pq.read_table(kept, columns=["row_id", "project"])
    if not names.num_rows:
        raise PipelineError(
            "there are no rows to make prompts of", "Check what the stages ingest and filter kept."
        )
    places, projects = assign(names, settings.validation_share, settings.test_share, settings.seed)
    check_splits(projects, settings.validation_share, settings.test_share, settings.seed)
    caps = (settings.max_train_rows, settings.max_held_out_rows, settings.max_held_out_rows)
    counts = cap(places, names.column("row_id"), caps, settings.seed)
    del names
    write(kept, places, settings.template, work.out)
    rows = {name: int((places == number).sum()) for number, name in enumerate(SPLITS)}
    total = len(places)
    return Summary(
        ", ".join(f"{rows[name]:,} {name}" for name in SPLITS)
        + f" rows of {sum(projects.values()):,} projects",
        rows_in=total,
        rows_out=sum(rows.values()),
        counts=counts,
        metrics={f"{name}_rows": rows[name] for name in SPLITS}
        | {f"{name}_projects": projects[name] for name in SPLITS},
    )


def assign(
    names: pa.Table, validation_share: float, test_share: float, seed: int
) -> tuple[NDArray[np.int8], dict[str, int]]:
    """The number in `SPLITS` of every row's split, and the projects in each."""
    column = names.column("project").combine_chunks().dictionary_encode()
    projects = column.dictionary.to_pylist()
    splits = [split_of(p or "", validation_share, test_share, seed) for p in projects]
    numbers = np.array([SPLITS.index(name) for name in splits], dtype=np.int8)
    return numbers[column.indices.to_numpy()], {name: splits.count(name) for name in SPLITS}


def check_splits(
    projects: Mapping[str, int], validation_share: float, test_share: float, seed: int
) -> None:
    """Refuse an empty split: training is watched on one, the model is judged on another.

    Raises:
        PipelineError: A split has no project.
    """
    empty = [name for name in SPLITS if not projects[name]]
    if empty:
        raise PipelineError(
            f"no project fell into {' and '.join(empty)}: {sum(projects.values())} projects, "
            f"validation_share {validation_share:g}, test_share {test_share:g}, seed {seed}",
            "Raise prompt.validation_share and prompt.test_share, try another prompt.seed, or "
            "ingest more projects.",
        )


def cap(
    places: NDArray[np.int8], row_ids: Any, caps: tuple[int | None, ...], seed: int
) -> dict[str, int]:
    """Mark rows beyond each split's cap as dropped, in place; returns how many, by split."""
    counts: dict[str, int] = {}
    ids: list[str] = []
    for number, at_most in enumerate(caps):
        members = np.flatnonzero(places == number)
        if at_most is None or len(members) <= at_most:
            continue
        ids = ids or row_ids.to_pylist()
        places[members] = DROPPED
        places[choose(ids, members.tolist(), at_most, seed)] = number
        counts[f"over_cap_{SPLITS[number]}"] = len(members) - at_most
    return counts


def write(kept: Path, places: NDArray[np.int8], template: str, out: Path) -> None:
    """Format every kept row into its split's file, in the order of `kept`."""
    writers = [
        pq.ParquetWriter(out / f"{name}.parquet", schemas.PROMPTS, compression="zstd")
        for name in SPLITS
    ]
    waiting: list[list[pa.RecordBatch]] = [[] for _ in SPLITS]
    columns = ["row_id", "project", "instruction", "input", "output"]
    done = 0
    try:
        for batch in pq.ParquetFile(kept).iter_batches(BATCH_ROWS, columns=columns):
            prompts = to_prompts(batch, template)
            place = places[done : done + len(batch)]
            for number in range(len(SPLITS)):
                part = prompts.filter(pa.array(place == number))
                waiting[number].append(part)
                if sum(map(len, waiting[number])) >= BATCH_ROWS:
                    _flush(writers[number], waiting[number])
            done += len(batch)
            report("prompts", done, len(places))
        for number, writer in enumerate(writers):
            _flush(writer, waiting[number])
    finally:
        for writer in writers:
            writer.close()


def _flush(writer: pq.ParquetWriter, waiting: list[pa.RecordBatch]) -> None:
    """Write what waits as one row group: small splits don't end in many tiny ones."""
    table = pa.Table.from_batches(waiting, schema=schemas.PROMPTS)
    if table.num_rows:
        writer.write_table(table, row_group_size=table.num_rows)
    waiting.clear()


def to_prompts(batch: pa.RecordBatch, template: str) -> pa.RecordBatch:
    """Rows (`schemas.KEPT`) -> prompts (`schemas.PROMPTS`), one for one."""
    instructions, inputs, outputs = (
        batch.column(name).to_pylist() for name in ("instruction", "input", "output")
    )
    prompts = [
        render(template, instruction, given or "")
        for instruction, given in zip(instructions, inputs, strict=True)
    ]
    completions = [complete(template, output) for output in outputs]
    return pa.record_batch(
        [batch.column("row_id"), batch.column("project"), prompts, completions],
        schema=schemas.PROMPTS,
    )
