"""Stage `filter`: rows.parquet -> kept.parquet, rejected.parquet (with all reasons) and
funnel.json.

Two passes, each a batch at a time. The first judges every row by itself, in processes, and notes
the verdicts in a scratch file; between them duplicates are found on 32 bytes a row; the second
deals rows out in their order.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core import schemas
from tasks.core.errors import PipelineError
from tasks.core.parallel import ordered_map, worker_count
from tasks.core.progress import track
from tasks.core.stage import Inputs, Summary, Work
from tasks.core.tables import TableWriter, read_batches
from tasks.filtering.duplicates import NO_TWIN, Twins, find_twins
from tasks.filtering.funnel import Funnel
from tasks.filtering.judging import COLUMNS, VERDICTS, Batch, Reason, judge
from tasks.filtering.rules import build_rules

if TYPE_CHECKING:
    from tasks.core.config import View

BATCH_ROWS = 1024
ROWS_FOR_PROCESSES = 20_000  # fewer are judged sooner than processes start


def run(config: "View", inputs: Inputs, work: Work) -> Summary:
    """Deal the rows out to kept and rejected.

    Raises:
        PipelineError: Not one row is kept.
    """
    rows = inputs["ingest.rows"]
    settings = config.filter.model_dump()
    total = pq.read_metadata(rows).num_rows
    verdicts = work.scratch / "verdicts.parquet"
    workers = worker_count(config.hardware.workers) if total >= ROWS_FOR_PROCESSES else 1
    _judge_all(rows, verdicts, settings, total, workers)
    twins = _twins(verdicts, tuple(settings["deduplicate"]))
    funnel = _deal_out(rows, verdicts, twins, work.out)
    verdicts.unlink()
    if funnel.kept + funnel.rejected != total:
        raise RuntimeError(
            f"{funnel.kept} kept + {funnel.rejected} rejected rows are not the {total} rows read"
        )
    rules = {rule.name: rule.setting for rule in build_rules(settings)}
    rules |= {_duplicate(text): "deduplicate" for text in twins}
    if not funnel.kept:
        raise _nothing_kept(funnel, total, rules)
    text = json.dumps(funnel.to_json(list(rules)), indent=2, ensure_ascii=False)
    (work.out / "funnel.json").write_text(text + "\n", encoding="utf-8")
    line = f"{funnel.kept:,} of {total:,} rows kept"
    if funnel.counts:
        rule, count = next(iter(funnel.counts.items()))
        line += f"; most removed by {rule} ({count:,})"
    return Summary(line=line, rows_in=total, rows_out=funnel.kept, counts=funnel.counts)


def _judge_all(
    rows: Path, verdicts: Path, settings: dict[str, Any], total: int, workers: int
) -> None:
    """First pass: verdicts on all rows, in their order, into a scratch file."""
    batches = (Batch(table, settings) for table in read_batches(rows, BATCH_ROWS, COLUMNS))
    judged = ordered_map(judge, batches, workers)
    with TableWriter(verdicts, VERDICTS) as writer:
        for table in track(judged, "judge rows", -(-total // BATCH_ROWS)):
            writer.add_table(table)


def _twins(verdicts: Path, texts: tuple[str, ...]) -> dict[str, Twins]:
    """{"instruction" | "output": for each row the kept row that has the same text}."""
    table = pq.read_table(verdicts, columns=["row_id", *texts])
    passes = np.concatenate(
        [
            _is_empty(batch.column("reasons"))
            for batch in read_batches(verdicts, BATCH_ROWS, ["reasons"])
        ]
        or [np.empty(0, dtype=bool)]
    )
    keys = [table.column(text).combine_chunks() for text in texts]
    found = find_twins(table.column("row_id").to_pylist(), passes, keys)
    return dict(zip(texts, found, strict=True))


def _is_empty(reasons: pa.ChunkedArray) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    return np.fromiter((not len(r) for r in reasons), dtype=bool, count=len(reasons))


def _deal_out(rows: Path, verdicts: Path, twins: dict[str, Twins], out: Path) -> Funnel:
    """Second pass: each row to kept or rejected, in order."""
    row_ids = pq.read_table(verdicts, columns=["row_id"]).column("row_id").combine_chunks()
    funnel = Funnel()
    with (
        TableWriter(out / "kept.parquet", schemas.KEPT) as kept,
        TableWriter(out / "rejected.parquet", schemas.REJECTED) as rejected,
    ):
        start = 0
        pairs = zip(
            read_batches(rows, BATCH_ROWS),
            read_batches(verdicts, BATCH_ROWS, ["reasons"]),
            strict=True,
        )
        for table, judged in pairs:
            reasons = judged.column("reasons").to_pylist()
            for i, own in enumerate(reasons):
                own.extend(_duplicate_reasons(start + i, twins, row_ids))
            for row_id, source, own in zip(
                table.column("row_id").to_pylist(),
                table.column("source").to_pylist(),
                reasons,
                strict=True,
            ):
                funnel.add(row_id, source, own)
            is_kept = pa.array([not own for own in reasons], pa.bool_())
            kept.add_table(table.filter(is_kept))
            column = pa.array(reasons, pa.list_(schemas.REASON))
            with_reasons = table.append_column(schemas.REJECTED.field("reasons"), column)
            rejected.add_table(
                with_reasons.filter(pa.array([bool(own) for own in reasons], pa.bool_()))
            )
            start += len(table)
    return funnel


def _duplicate_reasons(row: int, twins: dict[str, Twins], row_ids: pa.Array) -> Iterator[Reason]:
    for text, found in twins.items():
        if found[row] != NO_TWIN:
            twin = row_ids[int(found[row])].as_py()
            yield {
                "rule": _duplicate(text),
                "value": 1.0,
                "threshold": 0.0,
                "note": f"same as {twin}",
            }


def _duplicate(text: str) -> str:
    return f"duplicate_{text}"


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
