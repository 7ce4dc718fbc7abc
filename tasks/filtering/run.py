"""Stage `filter`: rows.parquet -> kept.parquet, rejected.parquet (with all reasons), funnel.json,
picture.svg and measurements.parquet.

Two passes, each a batch at a time. The first scores every row by itself, in worker processes,
unless an earlier run has scored it. Then duplicates are searched among all rows. The second pass
writes the rows in their order.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.decontamination import execution_match
from tasks.core.decontamination.problems import BenchmarkProblem, PackedProblems
from tasks.core.errors import PipelineError
from tasks.core.progress import say
from tasks.core.rows.parquet import BATCH_ROWS, read_batches
from tasks.core.rows.row_cache import by_columns, by_content, fill, opened
from tasks.core.rows.row_cache_shards import Shards
from tasks.core.rows.row_digests import Digests
from tasks.core.stage import Inputs, Summary, Work
from tasks.core.system.parallel import worker_count
from tasks.filtering import benchmarks
from tasks.filtering.dedup.find_duplicates import Duplicates, find_duplicates
from tasks.filtering.dedup.minhash import MinHash
from tasks.filtering.reasons import settings_by_reason, thresholds
from tasks.filtering.remedies import nothing_kept
from tasks.filtering.report.funnel import Funnel, heavy_line
from tasks.filtering.report.funnel_plot import funnel_svg
from tasks.filtering.report.loss_report import loss_report
from tasks.filtering.report.what_if import WhatIf
from tasks.filtering.score_rows import (
    BASE_LOSS,
    COLUMNS,
    KEY,
    SCORES,
    RowSettings,
    RowsToScore,
    score_rows,
)
from tasks.filtering.scores import RowScores
from tasks.filtering.write_rows import RowWriter

if TYPE_CHECKING:
    from tasks.core.settings.config import View
    from tasks.core.settings.filter import FilterSettings

SHOWN_HEAVY = 3  # rules that remove most of a source, in the summary
ROWS_FOR_PROCESSES = 5_000  # fewer rows are scored sooner than worker processes start


def run(config: "View", inputs: Inputs, work: Work) -> Summary:
    """Write every row to kept or rejected; with `filter.base_loss`, `base_loss.run` does.

    Raises:
        PipelineError: No row is kept, or a benchmark cannot be read.
    """
    return filter_rows(config, inputs, work)


def filter_rows(
    config: "View", inputs: Inputs, work: Work, losses: NDArray[np.float64] | None = None
) -> Summary:
    """The same, with the base model's loss on each row; None: not measured."""
    rows, settings = inputs["ingest.rows"], config.filter
    known = benchmarks.load(settings.decontamination, config.evaluate.sets)
    for benchmark in known:
        if benchmark.missing:
            say(f"{benchmark.missing}; install it with: {benchmarks.INSTALL}")
    problems = tuple(problem for benchmark in known for problem in benchmark.problems)
    packed = PackedProblems.of(problems)
    row_settings = RowSettings.of(settings)
    total = pq.read_metadata(rows).num_rows
    workers = worker_count(config.hardware.workers)
    with opened(work, (row_settings, packed), SCORES, np.uint64) as shards:
        batch = (row_settings, packed)
        row_ids, digests = _score_all(
            rows, shards, work, batch, losses, total=total, workers=workers
        )
        scores = RowScores(shards, row_ids, digests, work.scratch / "scores")
        idle = not_executable(rows, inputs["ingest.executable"], settings.require_executable)
        what_if = WhatIf(thresholds(settings))
        funnel, found = _write(
            rows, scores, settings, problems, idle, what_if, workers=workers, out=work.out
        )
    if funnel.kept + funnel.rejected != total:
        raise RuntimeError(
            f"{funnel.kept} kept + {funnel.rejected} rejected rows are not the {total} rows read"
        )
    if not funnel.kept:
        raise nothing_kept(funnel, total, settings)
    content = funnel.to_json(settings_by_reason(settings)) | {
        "contents": scores.contents(),
        "duplicates": _clusters(found),
        "benchmarks": [
            {"name": b.name, "tasks": len(b.problems), "missing": b.missing} for b in known
        ],
        "what_if": what_if.to_json(),
    }
    if losses is not None:
        content["base_loss"] = loss_report(rows, losses)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    # a lone surrogate of the data cannot be written as UTF-8
    (work.out / "funnel.json").write_text(text + "\n", encoding="utf-8", errors="replace")
    (work.out / "picture.svg").write_text(funnel_svg(content), encoding="utf-8")
    return _summary(funnel, total, content["heavy"], content.get("base_loss"))


def not_executable(rows: Path, executable: Path, required: bool) -> NDArray[np.bool_]:
    """Functions whose doctests did not pass; none if that is not required.

    Raises:
        PipelineError: No function's doctests passed.
    """
    if not required:
        return np.zeros(pq.read_metadata(rows).num_rows, dtype=bool)
    passed = pq.read_table(executable, columns=["row_id"]).column("row_id")
    if not len(passed):
        raise PipelineError(
            "filter.require_executable is on, and no function's doctests have passed",
            "Set ingest.doctests to true, or filter.require_executable to false.",
        )
    names = pq.read_table(rows, columns=["row_id", "kind"])
    has_passed = pc.is_in(names.column("row_id"), passed.combine_chunks())
    idle = pc.and_(pc.equal(names.column("kind"), "function"), pc.invert(has_passed))
    return np.array(idle, dtype=bool)


def _score_all(
    rows: Path,
    shards: Shards,
    work: Work,
    arguments: tuple[RowSettings, PackedProblems | None],
    losses: NDArray[np.float64] | None,
    *,
    total: int,
    workers: int,
) -> tuple[pa.Array, Digests]:
    """First pass: the scores of each row. Returns ids and digests of all rows."""

    def with_losses(losses: NDArray[np.float64]) -> Iterator[pa.Table]:
        done = 0
        for table in read_batches(rows, BATCH_ROWS, COLUMNS):
            own = pa.array(losses[done : done + len(table)], from_pandas=True)
            yield table.append_column(BASE_LOSS, own)
            done += len(table)

    by_id = by_columns(rows, KEY, COLUMNS)
    digests = fill(
        shards,
        by_id if losses is None else by_content(with_losses(losses)),
        score_rows,
        lambda table: RowsToScore(table, *arguments),
        work,
        workers=workers,
        batch_rows=BATCH_ROWS,
        rows_for_processes=ROWS_FOR_PROCESSES,
        progress=("score rows", total),
    )
    return pq.read_table(rows, columns=["row_id"]).column("row_id").combine_chunks(), digests


def _write(
    rows: Path,
    scores: RowScores,
    settings: "FilterSettings",
    problems: Sequence[BenchmarkProblem],
    idle: NDArray[np.bool_],
    what_if: WhatIf,
    *,
    workers: int,
    out: Path,
) -> tuple[Funnel, Duplicates]:
    """Run functions and find duplicates among the rows that pass the rules, then write all rows."""
    passes = scores.passes() & ~idle
    batches = read_batches(rows, BATCH_ROWS, COLUMNS)
    executed = execution_match.find(batches, passes, problems, settings.decontamination, workers)
    passes[list(executed)] = False
    near = settings.near_duplicates
    exact = scores.exact_groups("row") if settings.exact_duplicates else None
    candidates = scores.near_candidates(near.jaccard, MinHash.of(near), _sources(rows))
    found = find_duplicates(
        scores.order(), passes, exact, candidates, scores.exact_groups("question")
    )
    writer = RowWriter(
        scores,
        found,
        executed,
        idle,
        redact=settings.privacy.redact,
        jaccard=near.jaccard,
        max_answers=settings.max_answers,
    )
    return writer.write(rows, out, what_if), found


def _sources(rows: Path) -> NDArray[np.int64]:
    """A number for the source of each row."""
    column = pq.read_table(rows, columns=["source"]).column("source").combine_chunks()
    return np.asarray(column.dictionary_encode().indices).astype(np.int64)


def _clusters(found: Duplicates) -> dict[str, int]:
    sizes = np.bincount(found.clusters, minlength=1)
    return {
        "clusters": int(np.count_nonzero(sizes > 1)),
        "largest": int(sizes.max()),
        "verified_pairs": found.verified,
    }


def _summary(
    funnel: Funnel,
    total: int,
    heavy: Sequence[Mapping[str, Any]],
    base_loss: Mapping[str, Any] | None,
) -> Summary:
    line = f"{funnel.kept:,} of {total:,} rows kept"
    if funnel.counts:
        rule, count = next(iter(funnel.counts.items()))
        line += f"; most removed by {rule} ({count:,})"
    line += "".join(f"; {heavy_line(found)}" for found in heavy[:SHOWN_HEAVY])
    if base_loss:
        line += (
            f"; loss of the base: median {base_loss['p50']:.2f}, 99 % up to {base_loss['p99']:.2f}"
        )
    redacted = {f"redacted_{kind}": spans for kind, spans in funnel.redacted.items()}
    return Summary(line=line, rows_in=total, rows_out=funnel.kept, counts=funnel.counts | redacted)
