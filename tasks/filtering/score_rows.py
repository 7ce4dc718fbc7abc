"""First pass: a batch of rows -> the reasons against each, the measured values, and the keys for
deduplication. Pure, so that worker processes and the row cache can run it.

Texts are redacted first: rules, keys and n-grams are those of the text that would be kept.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import shake_128
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.core.decontamination.ngrams import Hashes, Words, hash_words, ngram_sets
from tasks.core.decontamination.problem_index import Hit, MatchLimits, ProblemIndex, build_index
from tasks.core.decontamination.problems import PackedProblems
from tasks.core.decontamination.syntax_match import find_shape
from tasks.core.decontamination.text_match import find_texts
from tasks.core.rows.row_cache_file import Values
from tasks.core.rows.row_schema import REASON
from tasks.core.system.parallel import without_gc
from tasks.filtering.dedup.exact_dedup import KEY_BYTES, text_key, trimmed
from tasks.filtering.dedup.minhash import MinHash, band_keys
from tasks.filtering.reasons import PRIVATE_KEY, Reason, contamination, reason
from tasks.filtering.redaction.redact import redact, suspects
from tasks.filtering.rules.protocol import RuleValues
from tasks.filtering.rules.registry import RULES
from tasks.filtering.rules.row_view import RowView

if TYPE_CHECKING:
    from tasks.core.settings.filter import FilterSettings

TEXTS = ("instruction", "input", "output")
KEY = ["row_id", "kind", "licence", "language"]  # the id is a hash of the texts, see ingestion/rows
COLUMNS = [*KEY, *TEXTS]
BASE_LOSS = "base_loss"  # a column beside these: null where it was not measured
SCORES = pa.schema(
    [
        ("reasons", pa.list_(REASON)),
        ("values", pa.list_(pa.float64())),  # one per rule; null if it does not measure such rows
        ("containment", pa.float64()),  # largest share of a problem's text in the row
        ("redactions", pa.string()),
        ("content", pa.string()),  # class of the output, see rules/content.py
        ("question", pa.binary(KEY_BYTES)),  # null: blank
        ("row", pa.binary(KEY_BYTES)),  # of question and answer; null: the answer is blank
        ("question_grams", pa.int32()),  # how many of the row's n-grams are those of its question
        ("bands", pa.large_binary()),  # band keys, 8 bytes each; empty without near deduplication
    ]
)
WHOLE = ("file", "fill", "context", "segments", "text")  # kinds that are compared as a whole
ANSWER = np.uint64(0xA5A5A5A5A5A5A5A5)  # xor of the n-grams of answers, see `_grams`
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
        return cls(
            tuple(rule.values(settings) for rule in RULES),
            settings.privacy.redact,
            settings.privacy.drop_private_keys,
            MinHash.of(settings.near_duplicates),
            MatchLimits.of(settings.decontamination),
        )


@dataclass(frozen=True)
class RowsToScore:
    """A batch of rows (`COLUMNS`, and maybe `BASE_LOSS`) with its settings and the problems of the
    benchmarks."""

    rows: pa.Table
    settings: RowSettings
    problems: PackedProblems | None = None


def score_rows(batch: RowsToScore) -> Values:
    """Score each row of a batch independently.

    Returns:
        `SCORES`, and the n-grams of each row: those of its question, then those of its answer.
    """
    settings = batch.settings
    rows, redactions = _redacted(batch.rows, settings.redact)
    texts = [f"{row['instruction']}\n{row['input']}\n{row['output']}" for row in rows]
    index = build_index(batch.problems, settings.limits) if batch.problems else None
    words = _words(rows)
    whole = Words(words.hashes, words.starts[::2])  # words do not cross a line's end
    hits = find_texts(texts, whole, index) if index else [[] for _ in rows]
    asked = answered = [NOTHING] * len(rows)
    bands = [b""] * len(rows)
    if settings.minhash:
        asked, answered = _grams(words, settings.minhash.ngram_words)
        both = [np.concatenate(pair) for pair in zip(asked, answered, strict=True)]
        bands = [row.tobytes() for row in band_keys(both, settings.minhash)]
        for i, row in enumerate(rows):
            if row["kind"] == "fill":
                # holes of a file share what is around them, so only equal rows are duplicates
                bands[i] = shake_128(texts[i].encode()).digest(len(bands[i]))
    columns: dict[str, list[Any]] = {name: [] for name in SCORES.names}
    with without_gc():
        for i, row in enumerate(rows):
            # one row at a time: a syntax tree takes far more memory than its text
            scores = _score(RowView(**row), redactions[i], hits[i], index, settings)
            scores |= {"bands": bands[i], "question_grams": len(asked[i])}
            for name, value in scores.items():
                columns[name].append(value)
    table = pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in SCORES], schema=SCORES)
    counts = np.array([len(a) + len(b) for a, b in zip(asked, answered, strict=True)], np.int64)
    grams = chain.from_iterable(zip(asked, answered, strict=True))
    return Values(table, np.concatenate([NOTHING, *grams]), counts)


def _words(rows: Sequence[dict[str, Any]]) -> Words:
    """Words of each row's question, then of its answer, as a text each."""
    pairs = ((f"{row['instruction']}\n{row['input']}", row["output"]) for row in rows)
    return hash_words(list(chain.from_iterable(pairs)))


def _grams(words: Words, size: int) -> tuple[list[Hashes], list[Hashes]]:
    """N-grams of each question and of each answer; no n-gram is in both."""
    sets = ngram_sets(words, size)
    asked, answered = sets[::2], sets[1::2]
    # another value for the same words, so that text that moves between the two is another text
    return asked, [np.sort(grams ^ ANSWER) for grams in answered]


def _redacted(table: pa.Table, kinds: Sequence[str]) -> tuple[list[dict[str, Any]], list[Spans]]:
    """Rows with their texts redacted, and the spans of each."""
    rows = table.drop_columns(["row_id"]).to_pylist()
    spans: list[Spans] = [[] for _ in rows]
    for name in TEXTS:
        for i in sorted(suspects([row[name] for row in rows])):
            rows[i][name], found = redact(rows[i][name], kinds)
            spans[i] += [[name, span.kind, span.start, span.end] for span in found]
    return rows, spans


def _score(
    row: RowView, spans: Spans, hits: list[Hit], index: ProblemIndex | None, settings: RowSettings
) -> dict[str, Any]:
    """One redacted row's `SCORES`, all but those of n-grams."""
    values, reasons = measure(row, settings.rules)
    keys = sum(kind == PRIVATE_KEY for _, kind, _, _ in spans)
    if keys and settings.drop_private_keys:
        reasons.append(reason(PRIVATE_KEY, keys, 0, "private key block"))
    if index:
        hits = hits + find_shape((row.instruction, row.input, row.output), row.source, index)
    least = settings.limits.max_containment
    reasons += [contamination(hit, least) for hit in hits if hit.counts(least)]
    instruction, input, output = map(trimmed, (row.instruction, row.input, row.output))
    return {
        "reasons": reasons,
        "values": values,
        "containment": max((hit.value for hit in hits if hit.layer == "ngrams"), default=0.0),
        "redactions": json.dumps(spans) if spans else "",
        "content": row.content,
        # rows of whole texts have no question that other rows could answer
        "question": None if row.kind in WHOLE else text_key(instruction, input),
        "row": text_key(instruction, input, output) if output else None,
    }


def measure(row: RowView, rules: Sequence[RuleValues]) -> tuple[list[float | None], list[Reason]]:
    """The value of every rule (None: it does not measure such rows), and a reason for each failing
    one."""
    values: list[float | None] = []
    reasons = []
    kind, is_python = row.kind, row.is_python
    for rule, given in zip(RULES, rules, strict=True):
        value = None
        if (given.kinds is None or kind in given.kinds) and (is_python or not rule.python_only):
            value = rule.measure(row, *given.parameters)
        values.append(value)
        if value is not None and rule.fails(value, given.threshold):
            note = rule.note(row, *given.parameters) if rule.note else ""
            reasons.append(reason(rule.name, value, given.threshold, note))
    return values, reasons
