"""Second pass: each row to kept or rejected, with its cluster and redacted texts, in order."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.core.decontamination.text_match import Hit
from tasks.core.rows import row_schema
from tasks.core.rows.parquet import TableWriter, read_batches
from tasks.filtering.dedup.duplicates import NO_TWIN, Numbers, Twins
from tasks.filtering.redaction.redact import redact
from tasks.filtering.report.funnel import Funnel
from tasks.filtering.report.what_if import WhatIf
from tasks.filtering.rules.table import Rule
from tasks.filtering.score_rows import (
    TEXTS,
    Reason,
    contaminated,
    reason,
)
from tasks.filtering.scores import Spool

NEAR, NGRAMS = "near_duplicate", "contamination_ngrams"
NOT_EXECUTABLE = "not_executable"


def measurements_schema(rules: Sequence[Rule]) -> pa.Schema:
    """One row a row of the input: the value of each rule, null where the rule looks away."""
    return pa.schema(
        [
            ("row_id", pa.string()),
            *((rule.name, pa.float64()) for rule in rules),
            (NGRAMS, pa.float64()),  # greatest share of a benchmark's text in the row
            (NEAR, pa.float64()),  # Jaccard similarity to the most similar kept row proposed
            ("near_twin", pa.string()),  # that row
        ]
    )


class Dealer:
    """All that is known about the rows; `deal` writes it down."""

    def __init__(
        self,
        spool: Spool,
        twins: Mapping[str, Numbers],
        found: Twins,
        executed: Mapping[int, Hit],
        idle: NDArray[np.bool_],
        settings: Mapping[str, Any],
    ) -> None:
        self._spool, self._exact, self._found = spool, twins, found
        self._executed, self._idle, self._settings = executed, idle, settings
        self._row_ids = spool.row_ids
        self._clusters = _least_of_clusters(found.clusters, self._row_ids)

    def deal(
        self, rows: Path, out: Path, rules: Sequence[Rule], what_if: WhatIf, batch: int
    ) -> Funnel:
        """Write kept, rejected and measurements; count everything."""
        funnel = Funnel()
        names = ["reasons", "values", "containment", "redactions"]
        pairs = zip(read_batches(rows, batch), self._spool.batches(batch, names), strict=True)
        schema = measurements_schema(rules)
        start = 0
        with (
            TableWriter(out / "kept.parquet", row_schema.KEPT) as kept,
            TableWriter(out / "rejected.parquet", row_schema.REJECTED) as rejected,
            TableWriter(out / "measurements.parquet", schema) as measured,
        ):
            for table, verdicts in pairs:
                redactions = verdicts.column("redactions")
                reasons = self._reasons(verdicts, start)
                draws = self._spool.digests[start : start + len(table), 0]
                funnel.add_batch(table, reasons, redactions, draws)
                whole = self._completed(table, redactions, start)
                counts = pc.list_value_length(reasons).to_numpy()
                kept.add_table(whole.filter(pa.array(counts == 0)))
                with_reasons = whole.append_column(row_schema.REJECTED.field("reasons"), reasons)
                rejected.add_table(with_reasons.filter(pa.array(counts > 0)))
                values = self._measured(verdicts, rules, start)
                what_if.add(values, counts)
                measured.add_table(self._as_table(values, schema, start))
                start += len(table)
            for writer in (kept, rejected, measured):
                writer.finish()
        return funnel

    def _reasons(self, verdicts: pa.Table, start: int) -> pa.ListArray:
        """All reasons against each row of a batch: its own verdict and what others say of it."""
        own = verdicts.column("reasons").combine_chunks()
        more = self._with_more(start, len(own))
        told = own.take(pa.array(more, pa.int64())).to_pylist()
        for i, reasons in zip(more, told, strict=True):
            reasons.extend(self._more(start + i))
        places = np.arange(len(own))
        places[more] = len(own) + np.arange(len(more))
        return pa.concat_arrays([own, pa.array(told, own.type)]).take(pa.array(places))

    def _with_more(self, start: int, count: int) -> list[int]:
        """Rows of a batch against which more than their own verdict stands."""
        part = slice(start, start + count)
        more = self._found.is_near[part] | self._idle[part]
        for twins in self._exact.values():
            more |= twins[part] != NO_TWIN
        more[[row - start for row in self._executed if start <= row < start + count]] = True
        return np.flatnonzero(more).tolist()

    def _more(self, row: int) -> Iterator[Reason]:
        if self._idle[row]:
            yield reason(NOT_EXECUTABLE, 0.0, 1.0, "its doctests did not pass, or it has none")
        if row in self._executed and (hit := contaminated(self._executed[row], 0.0)):
            yield hit
        for text, twins in self._exact.items():
            if twins[row] != NO_TWIN:
                twin = self._row_ids[int(twins[row])].as_py()
                yield reason(f"duplicate_{text}", 1.0, 0.0, f"same as {twin}")
        if self._found.is_near[row]:
            similarity = float(self._found.similarity[row])
            twin = self._row_ids[int(self._found.near[row])].as_py()
            least = self._settings["near_duplicates"]["jaccard"]
            yield reason(NEAR, similarity, least, f"Jaccard {similarity:.3f} with {twin}")

    def _completed(self, table: pa.Table, redactions: pa.ChunkedArray, start: int) -> pa.Table:
        """The rows as `schemas.KEPT`."""
        marked = np.flatnonzero(pc.not_equal(redactions, "")).tolist()
        for name in TEXTS if marked else ():
            texts = table.column(name).to_pylist()
            for i in marked:
                texts[i], _ = redact(texts[i], self._settings["privacy"]["redact"])
            place = table.schema.get_field_index(name)
            table = table.set_column(
                place, row_schema.ROWS.field(name), pa.array(texts, pa.string())
            )
        clusters = self._row_ids.take(pa.array(self._clusters[start : start + len(table)]))
        table = table.append_column(row_schema.KEPT.field("cluster"), clusters)
        return table.append_column(row_schema.KEPT.field("redactions"), redactions)

    def _measured(self, verdicts: pa.Table, rules: Sequence[Rule], start: int) -> dict[str, Any]:
        count = len(verdicts)
        flat = verdicts.column("values").combine_chunks().flatten()
        matrix = flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(count, len(rules))
        values = {rule.name: matrix[:, i] for i, rule in enumerate(rules)}
        values[NGRAMS] = verdicts.column("containment").to_numpy()
        values[NEAR] = self._found.similarity[start : start + count]
        return values

    def _as_table(self, values: Mapping[str, Any], schema: pa.Schema, start: int) -> pa.Table:
        count = len(values[NEAR])
        near = self._found.near[start : start + count]
        twins = self._row_ids.take(pa.array(near, mask=near == NO_TWIN))
        columns = [pa.array(values[name], from_pandas=True) for name in schema.names[1:-1]]
        return pa.Table.from_arrays(
            [self._row_ids.slice(start, count), *columns, twins], schema=schema
        )


def _least_of_clusters(clusters: Numbers, row_ids: pa.Array) -> Numbers:
    """For each row that row of its component, given by its first row, which has the least id."""
    least = np.arange(len(clusters))
    members = np.flatnonzero(np.bincount(clusters, minlength=1)[clusters] > 1)
    ids = row_ids.take(pa.array(members)).to_pylist()
    for _, row in sorted(zip(ids, members.tolist(), strict=True), reverse=True):
        least[clusters[row]] = row  # the last one is the least
    return least[clusters]
