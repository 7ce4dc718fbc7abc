"""Second pass: writes each row, with cluster and redacted texts, to kept or rejected, in order."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.core.decontamination.problem_index import Hit
from tasks.core.rows import row_schema
from tasks.core.rows.parquet import TableWriter, read_batches
from tasks.filtering.dedup.exact_dedup import NO_TWIN, Numbers
from tasks.filtering.dedup.find_duplicates import Duplicates
from tasks.filtering.reasons import (
    EXACT,
    MORE_ANSWERS,
    NEAR,
    NGRAMS,
    NOT_EXECUTABLE,
    Reason,
    contamination,
    reason,
)
from tasks.filtering.redaction.redact import redact, redact_json
from tasks.filtering.report.funnel import Funnel
from tasks.filtering.report.what_if import WhatIf
from tasks.filtering.rules.registry import RULES
from tasks.filtering.score_rows import TEXTS
from tasks.filtering.scores import RowScores

BATCH_ROWS = 2048  # that are written at once, half a row group

# one row per row of the input
MEASUREMENTS = pa.schema(
    [
        ("row_id", pa.string()),
        *((rule.name, pa.float64()) for rule in RULES),  # null if it does not measure such rows
        (NGRAMS, pa.float64()),  # largest share of a problem's text in the row
        (NEAR, pa.float64()),  # Jaccard similarity to the most similar kept row compared
        ("near_twin", pa.string()),  # that row
    ]
)


class RowWriter:
    """Everything known about the rows, from both passes and the searches between them."""

    def __init__(
        self,
        scores: RowScores,
        found: Duplicates,
        executed: Mapping[int, Hit],
        not_executable: NDArray[np.bool_],
        *,
        redact: Sequence[str],
        jaccard: float,
        max_answers: int | None,
    ) -> None:
        """Combine the results.

        Args:
            scores: Results of the first pass.
            found: Duplicates.
            executed: Rows with a function that passes a problem's tests.
            not_executable: Functions whose doctests did not pass.
            redact: Kinds of spans that are redacted.
            jaccard: Threshold of near duplicates.
            max_answers: Most rows with the same question; None: all.
        """
        self._scores, self._found = scores, found
        self._most = np.iinfo(np.int64).max if max_answers is None else max_answers
        self._executed, self._not_executable = executed, not_executable
        self._redact, self._jaccard = redact, jaccard
        self._row_ids = scores.row_ids
        self._clusters = _least_ids(found.clusters, self._row_ids)

    def write(self, rows: Path, out: Path, what_if: WhatIf) -> Funnel:
        """Write kept, rejected and measurements; count everything."""
        funnel = Funnel()
        names = ["reasons", "values", "containment", "redactions"]
        scores = self._scores.batches(BATCH_ROWS, names)
        start = 0
        with (
            TableWriter(out / "kept.parquet", row_schema.KEPT) as kept,
            TableWriter(out / "rejected.parquet", row_schema.REJECTED) as rejected,
            TableWriter(out / "measurements.parquet", MEASUREMENTS) as measured,
        ):
            for table, batch in zip(read_batches(rows, BATCH_ROWS), scores, strict=True):
                redactions = batch.column("redactions")
                reasons = self._reasons(batch, start)
                draws = self._scores.digests[start : start + len(table), 0]
                funnel.add_batch(table, reasons, redactions, draws)
                whole = self._completed(table, redactions, start)
                counts = pc.list_value_length(reasons).to_numpy()
                kept.add_table(whole.filter(pa.array(counts == 0)))
                with_reasons = whole.append_column(row_schema.REJECTED.field("reasons"), reasons)
                rejected.add_table(with_reasons.filter(pa.array(counts > 0)))
                values = self._values(batch, start)
                what_if.add(values, counts)
                measured.add_table(self._measurements(values, start))
                start += len(table)
            for writer in (kept, rejected, measured):
                writer.finish()
        return funnel

    def _reasons(self, scores: pa.Table, start: int) -> pa.ListArray:
        """All reasons against each row of a batch: from its own scores, and from other rows.

        Only rows with reasons of the second kind become Python objects; they are few.
        """
        own = scores.column("reasons").combine_chunks()
        extended = self._with_more(start, len(own))
        lists = own.take(pa.array(extended, pa.int64())).to_pylist()
        for i, reasons in zip(extended, lists, strict=True):
            reasons.extend(self._more(start + i))
        places = np.arange(len(own))
        places[extended] = len(own) + np.arange(len(extended))
        return pa.concat_arrays([own, pa.array(lists, own.type)]).take(pa.array(places))

    def _with_more(self, start: int, count: int) -> list[int]:
        """Rows of a batch that `_more` has reasons against."""
        part = slice(start, start + count)
        more = self._found.is_near[part] | self._not_executable[part]
        more |= self._found.exact[part] != NO_TWIN
        more |= self._found.answer_number[part] >= self._most
        more[[row - start for row in self._executed if start <= row < start + count]] = True
        return np.flatnonzero(more).tolist()

    def _more(self, row: int) -> Iterator[Reason]:
        if self._not_executable[row]:
            yield reason(NOT_EXECUTABLE, 0.0, 1.0, "its doctests did not pass, or it has none")
        if row in self._executed:
            yield contamination(self._executed[row], 0.0)
        if (twin := self._found.exact[row]) != NO_TWIN:
            yield reason(EXACT, 1.0, 0.0, f"same as {self._id(twin)}")
        if (number := int(self._found.answer_number[row])) >= self._most:
            yield reason(MORE_ANSWERS, number + 1, self._most, "answers to the same question")
        if self._found.is_near[row]:
            similarity = float(self._found.similarity[row])
            note = f"Jaccard {similarity:.3f} with {self._id(self._found.near[row])}"
            yield reason(NEAR, similarity, self._jaccard, note)

    def _id(self, row: np.int64) -> str:
        return str(self._row_ids[int(row)].as_py())

    def _completed(self, table: pa.Table, redactions: pa.ChunkedArray, start: int) -> pa.Table:
        """The rows as `row_schema.KEPT`."""
        redacted = np.flatnonzero(pc.not_equal(redactions, "")).tolist()
        for name in TEXTS if redacted else ():
            texts = table.column(name).to_pylist()
            for i in redacted:
                texts[i], _ = redact(texts[i], self._redact)
            place = table.schema.get_field_index(name)
            field = row_schema.ROWS.field(name)
            table = table.set_column(place, field, pa.array(texts, pa.string()))
        if redacted:
            texts = table.column("conversation").to_pylist()
            for i in redacted:
                texts[i] = redact_json(texts[i], self._redact)
            place = table.schema.get_field_index("conversation")
            field = row_schema.ROWS.field("conversation")
            table = table.set_column(place, field, pa.array(texts, pa.string()))
        clusters = self._row_ids.take(pa.array(self._clusters[start : start + len(table)]))
        table = table.append_column(row_schema.KEPT.field("cluster"), clusters)
        return table.append_column(row_schema.KEPT.field("redactions"), redactions)

    def _values(self, scores: pa.Table, start: int) -> dict[str, NDArray[np.float64]]:
        """The measured values of a batch by rule; NaN if a rule does not measure a row."""
        flat = scores.column("values").combine_chunks().flatten()
        matrix = flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, len(RULES))
        values = {rule.name: matrix[:, i] for i, rule in enumerate(RULES)}
        values[NGRAMS] = scores.column("containment").to_numpy()
        values[NEAR] = self._found.similarity[start : start + len(scores)]
        return values

    def _measurements(self, values: Mapping[str, NDArray[np.float64]], start: int) -> pa.Table:
        count = len(values[NEAR])
        near = self._found.near[start : start + count]
        twins = self._row_ids.take(pa.array(near, mask=near == NO_TWIN))
        columns: list[Any] = [
            pa.array(values[name], from_pandas=True) for name in MEASUREMENTS.names[1:-1]
        ]
        ids = self._row_ids.slice(start, count)
        return pa.Table.from_arrays([ids, *columns, twins], schema=MEASUREMENTS)


def _least_ids(clusters: Numbers, row_ids: pa.Array) -> Numbers:
    """For each row the row with the least id in its component, given by the component's first row.

    A cluster is named by an id and not by a position, so that new rows rename no other cluster.
    """
    least = np.arange(len(clusters))
    members = np.flatnonzero(np.bincount(clusters, minlength=1)[clusters] > 1)
    order = pc.array_sort_indices(row_ids.take(pa.array(members)), order="descending")
    rows = members[np.asarray(order)]
    least[clusters[rows]] = rows  # descending ids: the last assignment is the least
    return least[clusters]
