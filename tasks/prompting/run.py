"""Stage `prompt`: kept rows -> train.parquet, validation.parquet, test.parquet and problems.jsonl.

Ids and projects are read first and every row gets its split; then the texts are formatted a batch
at a time, so memory stays flat as the data grows.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.errors import PipelineError
from tasks.core.progress import report
from tasks.core.rows import row_schema
from tasks.core.rows.hash_rank import choose
from tasks.core.rows.parquet import TableWriter, read_batches
from tasks.core.settings.config import View
from tasks.core.stage import Summary, Work
from tasks.core.text.prompt_templates import complete, fill_in, render
from tasks.prompting.decontaminate import rows_with_problems, write_hits
from tasks.prompting.fill_in_middle import hole
from tasks.prompting.problems import choose_problems, write_problems
from tasks.prompting.split import (
    SPLITS,
    apart,
    split_of,
)

BATCH_ROWS = 1024
DROPPED = -1


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """See the module."""
    settings = config.prompt
    kept, executable = inputs["filter.kept"], inputs["ingest.executable"]
    names = pq.read_table(kept, columns=["row_id", "project", "kind", "cluster"])
    if not names.num_rows:
        raise PipelineError(
            "there are no rows to make prompts of", "Check what the stages ingest and filter kept."
        )
    places, projects = assign(names, settings.validation_share, settings.test_share, settings.seed)
    check_splits(projects, settings.validation_share, settings.test_share, settings.seed)
    counts: dict[str, int] = {}
    clusters = names.column("cluster").combine_chunks().dictionary_encode().indices.to_numpy()
    drop(places, apart(places, clusters), "cluster_in_another_split", counts)
    ids = names.column("row_id").to_pylist()
    splits = {i: SPLITS[place] for i, place in zip(ids, places.tolist(), strict=True) if place >= 0}
    problems = choose_problems(executable, splits, settings.max_problems, settings.seed)
    counts |= hold_out(places, ids, clusters, {problem["row_id"] for problem in problems})
    write_problems(work.out / "problems.jsonl", problems)
    limits = config.filter.decontamination.model_dump()
    hits = rows_with_problems(kept, places >= 0, problems, limits, work, config.hardware.workers)
    drop(places, np.isin(np.arange(len(places)), list(hits)), "holds_a_problem", counts)
    write_hits(work.out / "contaminated.jsonl", ids, hits)
    caps = (settings.max_train_rows, settings.max_held_out_rows, settings.max_held_out_rows)
    counts |= cap(places, names.column("row_id"), caps, settings.seed)
    del names, clusters, ids, splits
    texts = Texts(settings.template, settings.fim_rate, settings.seed)
    write(kept, places, texts, work.out)
    rows = {name: int((places == number).sum()) for number, name in enumerate(SPLITS)}
    held_out = f"; {len(problems):,} problems" if problems else ""
    return Summary(
        ", ".join(f"{rows[name]:,} {name}" for name in SPLITS)
        + f" rows of {sum(projects.values()):,} projects{held_out}",
        rows_in=len(places),
        rows_out=sum(rows.values()),
        counts=counts,
        metrics={f"{name}_rows": rows[name] for name in SPLITS}
        | {f"{name}_projects": projects[name] for name in SPLITS}
        | {"problems": len(problems)}
        | ({"infilling_rows": texts.infilled} if texts.fim_rate else {}),
    )


def drop(
    places: NDArray[np.int8], which: NDArray[np.bool_], reason: str, counts: dict[str, int]
) -> None:
    """Take rows out of their splits, in place, and count them."""
    if number := int(which.sum()):
        counts[reason] = counts.get(reason, 0) + number
    places[which] = DROPPED


def hold_out(
    places: NDArray[np.int8],
    ids: Sequence[str],
    clusters: NDArray[np.int64],
    chosen: Collection[str],
) -> dict[str, int]:
    """Take the rows of problems and all that are tied to them out of their splits, in place;
    returns how many."""
    counts: dict[str, int] = {}
    own = np.array([i in chosen for i in ids])
    tied = np.isin(clusters, clusters[own]) & ~own & (places >= 0)
    drop(places, own, "held_out_as_problem", counts)
    drop(places, tied, "tied_to_a_problem", counts)
    return counts


@dataclass
class Texts:
    """How rows become texts.

    Attributes:
        infilled: Rows that became infilling so far.
    """

    template: str
    fim_rate: float
    seed: int
    infilled: int = 0


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


def write(kept: Path, places: NDArray[np.int8], texts: Texts, out: Path) -> None:
    """Format every kept row into its split's file, in the order of `kept`."""
    columns = ["row_id", "project", "instruction", "input", "output", "kind"]
    done = 0
    with ExitStack() as stack:
        writers = [
            stack.enter_context(TableWriter(out / f"{name}.parquet", row_schema.PROMPTS))
            for name in SPLITS
        ]
        for batch in read_batches(kept, BATCH_ROWS, columns):
            place = places[done : done + len(batch)]
            prompts = to_prompts(batch, place == SPLITS.index("train"), texts)
            for number, writer in enumerate(writers):
                writer.add_table(prompts.filter(pa.array(place == number)))
            done += len(batch)
            report("prompts", done, len(places))
        for writer in writers:
            writer.finish()


def to_prompts(batch: pa.Table, train: NDArray[np.bool_], texts: Texts) -> pa.Table:
    """Rows (`schemas.KEPT`) -> prompts (`schemas.PROMPTS`), one for one.

    Only functions to train on become infilling: validation and test measure what is asked for.
    """
    instructions, inputs, outputs = (
        batch.column(name).to_pylist() for name in ("instruction", "input", "output")
    )
    prompts = [
        render(texts.template, instruction, given or "")
        for instruction, given in zip(instructions, inputs, strict=True)
    ]
    completions = [complete(texts.template, output) for output in outputs]
    if texts.fim_rate:
        kinds, ids = batch.column("kind").to_pylist(), batch.column("row_id").to_pylist()
        for i in np.flatnonzero(train).tolist():
            if kinds[i] != "function":
                continue
            if place := hole(outputs[i], ids[i], texts.fim_rate, texts.seed):
                prompts[i], completions[i] = fill_in(outputs[i], *place)
                texts.infilled += 1
    return pa.table(
        [batch.column("row_id"), batch.column("project"), prompts, completions],
        schema=row_schema.PROMPTS,
    )
