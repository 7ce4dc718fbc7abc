"""A batch of rows -> the reasons against each, what was measured, and the keys for finding
duplicates; pure, so processes can share it.

Texts are redacted first: rules, keys and n-grams are those of the text that would be kept.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.core.decontamination import text_match
from tasks.core.decontamination.ngrams import hash_words, ngram_sets
from tasks.core.decontamination.problems import TaskSet
from tasks.core.decontamination.text_match import Hit, Index
from tasks.core.rows.row_cache_file import Values
from tasks.core.rows.row_schema import REASON
from tasks.core.system.parallel import without_gc
from tasks.filtering.dedup.duplicates import KEY_BYTES, text_key
from tasks.filtering.dedup.minhash import band_keys
from tasks.filtering.redaction.redact import redact, suspects
from tasks.filtering.redaction.secret_patterns import PRIVATE_KEY
from tasks.filtering.rules.row_view import Sample
from tasks.filtering.rules.table import Rule, build_rules

NOTE_CHARACTERS = 200
TEXTS = ("instruction", "input", "output")
COLUMNS = ["row_id", *TEXTS, "kind", "licence"]
VERDICTS = pa.schema(
    [
        ("reasons", pa.list_(REASON)),
        ("values", pa.list_(pa.float64())),  # one a rule; null where the rule looks away
        ("containment", pa.float64()),  # greatest share of a benchmark's text in the row
        ("redactions", pa.string()),
        ("instruction", pa.binary(KEY_BYTES)),
        ("output", pa.binary(KEY_BYTES)),
        (
            "bands",
            pa.large_binary(),
        ),  # band keys, 8 bytes each; none where near duplicates are allowed
    ]
)

# what needs all rows at once, or more than a row
FOR_ALL = ("deduplicate", "require_executable")
ABOUT_ALL_ROWS = {
    "near_duplicates": ("jaccard",),
    "decontamination": (
        "benchmarks",
        "files",
        "require_benchmarks",
        "execution",
        "max_executions",
        "execution_timeout_s",
    ),
}
NOTHING = np.empty(0, dtype=np.uint64)

Reason = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Rows (`COLUMNS`), the section `filter` as a dictionary, and the tasks of the benchmarks."""

    rows: pa.Table
    settings: Mapping[str, Any]
    tasks: TaskSet | None = None


def judge(batch: Batch) -> Values:
    """Look at each row of a batch by itself.

    Returns:
        `VERDICTS`, and the n-grams of each row.
    """
    settings = batch.settings
    rows, redactions = _redacted(batch.rows, settings["privacy"]["redact"])
    texts = [f"{row['instruction']}\n{row['input']}\n{row['output']}" for row in rows]
    words = hash_words(texts)
    hits: list[list[Hit]] = [[] for _ in rows]
    index = None
    if batch.tasks:
        limits = limits_of(settings["decontamination"])
        index = text_match.build_index(batch.tasks, limits)
        hits = text_match.find_texts(texts, words, index)
    near = settings["near_duplicates"]
    grams = ngram_sets(words, near["ngram_words"]) if near["enabled"] else [NOTHING] * len(rows)
    bands = [b""] * len(rows)
    if near["enabled"]:
        keys = band_keys(grams, near["permutations"], near["bands"], near["rows_per_band"])
        bands = [row.tobytes() for row in keys]
    with without_gc():
        verdicts = _verdicts(batch, rows, redactions, hits, index, bands)
    counts = np.array([len(row) for row in grams], dtype=np.int64)
    return Values(verdicts, np.concatenate([NOTHING, *grams]), counts)


def row_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the section `filter` that says something about single rows: to change another
    one costs no row a second look."""
    about_rows = {name: value for name, value in settings.items() if name not in FOR_ALL}
    for section, others in ABOUT_ALL_ROWS.items():
        about_rows[section] = {n: v for n, v in settings[section].items() if n not in others}
    return about_rows


def limits_of(settings: Mapping[str, Any]) -> text_match.Limits:
    """Thresholds of the section `filter.decontamination`."""
    names = text_match.Limits.__dataclass_fields__
    return text_match.Limits(**{name: settings[name] for name in names})


def _redacted(
    table: pa.Table, kinds: Sequence[str]
) -> tuple[list[dict[str, Any]], list[list[list[Any]]]]:
    """Rows with their texts redacted, and [column, type, start, end] of each span."""
    rows = table.select(COLUMNS[1:]).to_pylist()
    spans: list[list[list[Any]]] = [[] for _ in rows]
    for name in TEXTS:
        for i in sorted(suspects([row[name] for row in rows])):
            rows[i][name], found = redact(rows[i][name], kinds)
            spans[i] += [[name, span.kind, span.start, span.end] for span in found]
    return rows, spans


def _verdicts(
    batch: Batch,
    rows: Sequence[dict[str, Any]],
    redactions: Sequence[list[list[Any]]],
    hits: Sequence[list[Hit]],
    index: Index | None,
    bands: Sequence[bytes],
) -> pa.Table:
    """Verdicts on redacted rows; one row's syntax tree is held at a time."""
    rules = build_rules(batch.settings)
    least = batch.settings["decontamination"]["max_containment"]
    drop_keys = batch.settings["privacy"]["drop_private_keys"]
    columns: dict[str, list[Any]] = {name: [] for name in VERDICTS.names}
    columns["bands"] = list(bands)
    for row, spans, found in zip(rows, redactions, hits, strict=True):
        sample = Sample(**row)
        measured, against = measure(sample, rules)
        keys = sum(span[1] == PRIVATE_KEY.name for span in spans)
        if keys and drop_keys:
            against.append(reason("private_key", keys, 0, "private key block"))
        if index and index.shapes:
            own = (sample.instruction, sample.input, sample.output)
            found.extend(text_match.find_shape(own, sample.parsed[0], index))
        against += [r for hit in found if (r := contaminated(hit, least))]
        columns["reasons"].append(against)
        columns["values"].append(measured)
        shares = [hit.value for hit in found if hit.layer == "ngrams"]
        columns["containment"].append(max(shares, default=0.0))
        columns["redactions"].append(json.dumps(spans) if spans else "")
        asked = f"{sample.instruction}\0{sample.input}"
        columns["instruction"].append(text_key(asked, is_python=False))
        columns["output"].append(text_key(sample.output, sample.parsed[0] is not None))
    return pa.Table.from_arrays(
        [pa.array(columns[f.name], f.type) for f in VERDICTS], schema=VERDICTS
    )


def contaminated(hit: Hit, least: float) -> Reason | None:
    """The reason that a hit is; None for too small a share of n-grams."""
    if hit.layer == "ngrams" and hit.value < least:
        return None
    threshold = least if hit.layer == "ngrams" else 0.0
    note = f"{hit.task_id}: {hit.evidence}"
    return reason(f"contamination_{hit.layer}", hit.value, threshold, note)


def measure(sample: Sample, rules: Sequence[Rule]) -> tuple[list[float | None], list[Reason]]:
    """The value of every rule (None: it does not look at such rows), and the rules that fail."""
    values: list[float | None] = []
    reasons = []
    for rule in rules:
        value = float(rule.measure(sample)) if rule.looks_at(sample.kind) else None
        values.append(value)
        if value is not None and rule.fails(value):
            note = rule.note(sample) if rule.note else ""
            reasons.append(reason(rule.name, value, rule.threshold, note))
    return values, reasons


def reason(rule: str, value: float, threshold: float, note: str = "") -> Reason:
    """One reason against a row."""
    return {
        "rule": rule,
        "value": float(value),
        "threshold": float(threshold),
        "note": note[:NOTE_CHARACTERS],
    }
