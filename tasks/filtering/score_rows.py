"""First pass: a batch of rows -> the reasons against each, the measured values, and the keys for
deduplication. Pure, so that worker processes and the row cache can run it.

Texts are redacted first: rules, keys and n-grams are those of the text that would be kept.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import shake_128
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.core.decontamination.ngrams import hash_words, ngram_sets
from tasks.core.decontamination.problem_index import Hit, MatchLimits, ProblemIndex, build_index
from tasks.core.decontamination.problems import PackedProblems
from tasks.core.decontamination.syntax_match import find_shape
from tasks.core.decontamination.text_match import find_texts
from tasks.core.rows.row_cache_file import Values
from tasks.core.rows.row_schema import REASON
from tasks.core.system.parallel import without_gc
from tasks.filtering.dedup.exact_dedup import KEY_BYTES, text_key
from tasks.filtering.dedup.minhash import MinHash, band_keys
from tasks.filtering.reasons import PRIVATE_KEY, Reason, contamination, reason
from tasks.filtering.redaction.redact import redact, suspects
from tasks.filtering.rules.protocol import RuleValues
from tasks.filtering.rules.registry import RULES
from tasks.filtering.rules.row_view import RowView

if TYPE_CHECKING:
    from tasks.core.settings.filter import FilterSettings

TEXTS = ("instruction", "input", "output")
COLUMNS = ["row_id", *TEXTS, "kind", "licence", "language"]
SCORES = pa.schema(
    [
        ("reasons", pa.list_(REASON)),
        ("values", pa.list_(pa.float64())),  # one per rule; null if it does not measure such rows
        ("containment", pa.float64()),  # largest share of a problem's text in the row
        ("redactions", pa.string()),
        ("instruction", pa.binary(KEY_BYTES)),
        ("output", pa.binary(KEY_BYTES)),
        ("bands", pa.large_binary()),  # band keys, 8 bytes each; empty without near deduplication
    ]
)
WHOLE = ("file", "fill", "text")  # kinds that are compared as a whole
NOTHING = np.empty(0, dtype=np.uint64)

Spans = list[list[Any]]  # [column, type, start, end] of each redacted span of a row


@dataclass(frozen=True)
class RowSettings:
    """The part of the section `filter` that concerns single rows, as plain values.

    It is part of the row cache's key: settings that need all rows at once (such as the Jaccard
    threshold) are left out, so that changing one of them scores no row again.
    """

    rules: tuple[RuleValues, ...]
    redact: tuple[str, ...]
    drop_private_keys: bool
    minhash: MinHash | None
    limits: MatchLimits

    @classmethod
    def of(cls, settings: "FilterSettings") -> "RowSettings":
        """The values of one run; `minhash` is None if near duplicates are allowed."""
        near = settings.near_duplicates
        minhash = MinHash(near.ngram_words, near.permutations, near.bands, near.rows_per_band)
        return cls(
            tuple(rule.values(settings) for rule in RULES),
            settings.privacy.redact,
            settings.privacy.drop_private_keys,
            minhash if near.enabled else None,
            MatchLimits.of(settings.decontamination),
        )


@dataclass(frozen=True)
class RowsToScore:
    """A batch of rows (`COLUMNS`) with its settings and the problems of the benchmarks."""

    rows: pa.Table
    settings: RowSettings
    problems: PackedProblems | None = None


def score_rows(batch: RowsToScore) -> Values:
    """Score each row of a batch by itself.

    Returns:
        `SCORES`, and the n-grams of each row.
    """
    settings = batch.settings
    rows, redactions = _redacted(batch.rows, settings.redact)
    texts = [f"{row['instruction']}\n{row['input']}\n{row['output']}" for row in rows]
    words = hash_words(texts)
    index = build_index(batch.problems, settings.limits) if batch.problems else None
    hits = find_texts(texts, words, index) if index else [[] for _ in rows]
    grams, bands = [NOTHING] * len(rows), [b""] * len(rows)
    if settings.minhash:
        grams = ngram_sets(words, settings.minhash.ngram_words)
        bands = [row.tobytes() for row in band_keys(grams, settings.minhash)]
        for i, row in enumerate(rows):
            if row["kind"] == "fill":
                # holes of a file share what is around them, so only equal rows are duplicates
                bands[i] = shake_128(texts[i].encode()).digest(len(bands[i]))
    columns: dict[str, list[Any]] = {name: [] for name in SCORES.names}
    with without_gc():
        for row, spans, found, keys in zip(rows, redactions, hits, bands, strict=True):
            # one row at a time: a syntax tree takes far more memory than its text
            scores = _score(RowView(**row), spans, found, index, settings) | {"bands": keys}
            for name, value in scores.items():
                columns[name].append(value)
    table = pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in SCORES], schema=SCORES)
    counts = np.array([len(row) for row in grams], dtype=np.int64)
    return Values(table, np.concatenate([NOTHING, *grams]), counts)


def _redacted(table: pa.Table, kinds: Sequence[str]) -> tuple[list[dict[str, Any]], list[Spans]]:
    """Rows with their texts redacted, and the spans of each."""
    rows = table.select(COLUMNS[1:]).to_pylist()
    spans: list[Spans] = [[] for _ in rows]
    for name in TEXTS:
        for i in sorted(suspects([row[name] for row in rows])):
            rows[i][name], found = redact(rows[i][name], kinds)
            spans[i] += [[name, span.kind, span.start, span.end] for span in found]
    return rows, spans


def _score(
    row: RowView, spans: Spans, hits: list[Hit], index: ProblemIndex | None, settings: RowSettings
) -> dict[str, Any]:
    """One redacted row's `SCORES`, all but the band keys."""
    values, reasons = measure(row, settings.rules)
    keys = sum(kind == PRIVATE_KEY for _, kind, _, _ in spans)
    if keys and settings.drop_private_keys:
        reasons.append(reason(PRIVATE_KEY, keys, 0, "private key block"))
    if index:
        hits = hits + find_shape((row.instruction, row.input, row.output), row.source, index)
    least = settings.limits.max_containment
    reasons += [contamination(hit, least) for hit in hits if hit.counts(least)]
    asked, answer = f"{row.instruction}\0{row.input}", row.output
    if row.kind in WHOLE:  # they have no task of their own, and short texts recur in other places
        asked = answer = f"{asked}\0{answer}"
    return {
        "reasons": reasons,
        "values": values,
        "containment": max((hit.value for hit in hits if hit.layer == "ngrams"), default=0.0),
        "redactions": json.dumps(spans) if spans else "",
        "instruction": text_key(asked, is_python=False),
        "output": text_key(answer, is_python=row.source is not None),
    }


def measure(row: RowView, rules: Sequence[RuleValues]) -> tuple[list[float | None], list[Reason]]:
    """The value of every rule (None: it does not measure such rows), and a reason for each failing
    one."""
    values: list[float | None] = []
    reasons = []
    for rule, given in zip(RULES, rules, strict=True):
        is_other = rule.python_only and not row.is_python
        if is_other or (given.kinds is not None and row.kind not in given.kinds):
            values.append(None)
            continue
        value = float(rule.measure(row, *given.parameters))
        values.append(value)
        if rule.fails(value, given.threshold):
            note = rule.note(row, *given.parameters) if rule.note else ""
            reasons.append(reason(rule.name, value, given.threshold, note))
    return values, reasons
