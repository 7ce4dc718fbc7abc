"""Stage `filter`: rows.parquet -> kept.parquet, rejected.parquet (with all reasons), funnel.json
and measurements.parquet.

Two passes, each a batch at a time. The first judges every row by itself, in processes, unless an
earlier run has done so; between them duplicates are found; the second deals rows out in their
order.
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
from tasks.core.decontamination.problems import Task, TaskSet
from tasks.core.decontamination.text_match import LAYERS, Hit
from tasks.core.errors import PipelineError
from tasks.core.progress import say
from tasks.core.rows.parquet import read_batches
from tasks.core.rows.row_cache import fill, opened
from tasks.core.rows.row_cache_shards import Shards
from tasks.core.rows.row_digests import Digests
from tasks.core.stage import Inputs, Summary, Work
from tasks.core.system.parallel import worker_count
from tasks.filtering import benchmarks
from tasks.filtering.benchmarks import Benchmark
from tasks.filtering.dedup.duplicates import Twins, find_twins
from tasks.filtering.report.funnel import Funnel
from tasks.filtering.report.funnel_plot import funnel_svg
from tasks.filtering.report.what_if import Threshold, WhatIf
from tasks.filtering.rules.table import Rule, build_rules
from tasks.filtering.score_rows import (
    COLUMNS,
    VERDICTS,
    Batch,
    judge,
    row_settings,
)
from tasks.filtering.scores import Spool
from tasks.filtering.write_rows import (
    NEAR,
    NGRAMS,
    NOT_EXECUTABLE,
    Dealer,
)

if TYPE_CHECKING:
    from tasks.core.settings.config import View

BATCH_ROWS = 1024
DEALT_ROWS = 2048  # of a batch of the second pass
ROWS_FOR_PROCESSES = 5_000  # fewer are judged sooner than processes start

Settings = Mapping[str, Any]


def run(config: "View", inputs: Inputs, work: Work) -> Summary:
    """Deal the rows out to kept and rejected.

    Raises:
        PipelineError: Not one row is kept, or a benchmark can't be read.
    """
    rows = inputs["ingest.rows"]
    settings = config.filter.model_dump()
    sets = [own.model_dump() for own in config.evaluate.sets]
    known = _benchmarks(settings["decontamination"], sets)
    tasks = tuple(task for benchmark in known for task in benchmark.tasks)
    total = pq.read_metadata(rows).num_rows
    workers = worker_count(config.hardware.workers)
    looked_for = TaskSet.of(tasks)
    with opened(work, (row_settings(settings), looked_for), VERDICTS, np.uint64) as shards:
        row_ids, digests = _judge_all(
            rows, shards, settings, work, tasks=looked_for, total=total, workers=workers
        )
        spool = Spool(shards, row_ids, digests)
        idle = not_executable(
            rows, inputs["ingest.executable"], bool(settings["require_executable"])
        )
        funnel, found, what_if = _deal_out(
            rows, spool, settings, tasks=tasks, idle=idle, workers=workers, out=work.out
        )
    if funnel.kept + funnel.rejected != total:
        raise RuntimeError(
            f"{funnel.kept} kept + {funnel.rejected} rejected rows are not the {total} rows read"
        )
    rules = settings_by_rule(settings)
    if not funnel.kept:
        raise _nothing_kept(funnel, total, rules)
    told = funnel.to_json(rules)
    told["duplicates"] = _clusters(found)
    told["benchmarks"] = [
        {"name": b.name, "tasks": len(b.tasks), "missing": b.missing} for b in known
    ]
    told["what_if"] = what_if.to_json()
    text = json.dumps(told, indent=2, ensure_ascii=False)
    (work.out / "funnel.json").write_text(text + "\n", encoding="utf-8", errors="replace")
    (work.out / "picture.svg").write_text(funnel_svg(told), encoding="utf-8")
    return _summary(funnel, total)


def settings_by_rule(settings: Settings) -> dict[str, str]:
    """{rule: field of the section `filter` that moves it}, in the order of reports."""
    rules = {rule.name: rule.setting for rule in build_rules(settings)}
    if settings["require_executable"]:
        rules[NOT_EXECUTABLE] = "require_executable"
    rules["private_key"] = "privacy.drop_private_keys"
    fields = ("min_substring_characters", "max_containment", "syntax_trees", "execution")
    for layer, field in zip(LAYERS, fields, strict=True):
        rules[f"contamination_{layer}"] = f"decontamination.{field}"
    rules |= {f"duplicate_{text}": "deduplicate" for text in settings["deduplicate"]}
    if settings["near_duplicates"]["enabled"]:
        rules[NEAR] = "near_duplicates.jaccard"
    return rules


def not_executable(rows: Path, executable: Path, required: bool) -> NDArray[np.bool_]:
    """Functions whose doctests did not pass; none where that is not asked for.

    Raises:
        PipelineError: None ran at all.
    """
    if not required:
        return np.zeros(pq.read_metadata(rows).num_rows, dtype=bool)
    ran = pq.read_table(executable, columns=["row_id"]).column("row_id")
    if not len(ran):
        raise PipelineError(
            "filter.require_executable is on, and no function's doctests have passed",
            "Set ingest.doctests to true, or filter.require_executable to false.",
        )
    names = pq.read_table(rows, columns=["row_id", "kind"])
    has_run = pc.is_in(names.column("row_id"), ran.combine_chunks())
    idle = pc.and_(pc.equal(names.column("kind"), "function"), pc.invert(has_run))
    return np.array(idle, dtype=bool)


def _benchmarks(settings: Settings, sets: Sequence[Settings]) -> list[Benchmark]:
    known = benchmarks.load(
        settings["benchmarks"], settings["files"], bool(settings["require_benchmarks"]), sets
    )
    for benchmark in known:
        if benchmark.missing:
            say(f"{benchmark.missing}; install it with: {benchmarks.INSTALL}")
    return known


def _judge_all(
    rows: Path,
    shards: Shards,
    settings: Settings,
    work: Work,
    *,
    tasks: TaskSet | None,
    total: int,
    workers: int,
) -> tuple[pa.Array, Digests]:
    """First pass: what is known about each row by itself. Returns ids and digests of all rows."""
    about_rows = row_settings(settings)
    row_ids = [pa.array([], pa.string())]

    def batches() -> Iterator[pa.Table]:
        for table in read_batches(rows, BATCH_ROWS, COLUMNS):
            row_ids.extend(table.column("row_id").chunks)
            yield table

    digests = fill(
        shards,
        batches(),
        judge,
        lambda table: Batch(table, about_rows, tasks),
        work,
        workers=workers,
        batch_rows=BATCH_ROWS,
        rows_for_processes=ROWS_FOR_PROCESSES,
        progress=("judge rows", total),
    )
    return pa.concat_arrays(row_ids), digests


def _deal_out(
    rows: Path,
    spool: Spool,
    settings: Settings,
    *,
    tasks: Sequence[Task],
    idle: NDArray[np.bool_],
    workers: int,
    out: Path,
) -> tuple[Funnel, Twins, WhatIf]:
    """What needs all rows at once, and the second pass."""
    passes = spool.passes() & ~idle
    executed: dict[int, Hit] = {}
    if settings["decontamination"]["execution"]:
        batches = read_batches(rows, BATCH_ROWS, COLUMNS)
        executed = execution_match.find(
            batches, passes, tasks, settings["decontamination"], workers
        )
        passes[list(executed)] = False
    texts = tuple(settings["deduplicate"])
    near = spool.near(settings["near_duplicates"]["jaccard"])
    found = find_twins(spool.order(), passes, spool.exact(texts), near)
    rules = build_rules(settings)
    what_if = WhatIf(_thresholds(rules, settings))
    exact = dict(zip(texts, found.exact, strict=True))
    dealer = Dealer(spool, exact, found, executed, idle, settings)
    return dealer.deal(rows, out, rules, what_if, DEALT_ROWS), found, what_if


def _thresholds(rules: Sequence[Rule], settings: Settings) -> list[Threshold]:
    moved = [Threshold(rule.name, float(rule.threshold), rule.is_most) for rule in rules]
    shares = {NGRAMS: settings["decontamination"]["max_containment"]}
    if settings["near_duplicates"]["enabled"]:
        shares[NEAR] = settings["near_duplicates"]["jaccard"]
    return moved + [Threshold(n, float(v), inclusive=True, highest=1.0) for n, v in shares.items()]


def _clusters(found: Twins) -> dict[str, int]:
    sizes = np.bincount(found.clusters, minlength=1)
    return {
        "clusters": int(np.count_nonzero(sizes > 1)),
        "largest": int(sizes.max()),
        "verified_pairs": found.verified,
    }


def _summary(funnel: Funnel, total: int) -> Summary:
    line = f"{funnel.kept:,} of {total:,} rows kept"
    if funnel.counts:
        rule, count = next(iter(funnel.counts.items()))
        line += f"; most removed by {rule} ({count:,})"
    redacted = {f"redacted_{kind}": spans for kind, spans in funnel.redacted.items()}
    return Summary(line=line, rows_in=total, rows_out=funnel.kept, counts=funnel.counts | redacted)


def _nothing_kept(funnel: Funnel, total: int, settings: dict[str, str]) -> PipelineError:
    """The error that tells which rules took every row, and how far the nearest row was from
    passing."""
    if not total:
        return PipelineError("filter got 0 rows to judge", "Give `ingest.sources` some rows.")
    told, remedies = [], []
    for rule, count in list(funnel.counts.items())[:5]:
        value, threshold = funnel.nearest(rule)
        told.append(f"{rule} {count:,} (nearest value {value:.4g}, threshold {threshold:.4g})")
        remedies.append(f"filter.{settings[rule]}")
    return PipelineError(
        f"all {total:,} rows are filtered out, by {', '.join(told)}",
        f"Loosen {', '.join(dict.fromkeys(remedies))}, or give ingest other rows.",
    )
