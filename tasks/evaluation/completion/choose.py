"""Which spans are posed: drawn from held-out files in turn, without those in the training data.

A span is in the training data if its whole lines, or nearly all of them, are lines of one training
row: licence headers, boilerplate, copies. What is left must be written, not remembered.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import pyarrow.parquet as pq

from tasks.core.progress import report
from tasks.core.rows.data_card import DataCard
from tasks.core.rows.hash_rank import keyed_rank
from tasks.core.rows.parquet import read_batches
from tasks.core.rows.split_unit import FEWEST_CLUSTERS, count_of
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.evaluation.completion import documents, spans
from tasks.evaluation.completion.spans import CodeSpan
from tasks.evaluation.generation.scope_end import SIZES

NEARLY_ALL = 0.8  # of the characters of a span's lines
IN_TRAINING = "are in the training data"
_BYTES_PER_TOKEN = 2  # at least, so that every span fits the limit of new tokens
_FILES_PER_SPAN = len(SIZES)  # files that are read for each span of a size
_MOST_PER_FILE = 64


@dataclass(frozen=True)
class ChosenSpans:
    """The spans of an evaluation.

    Attributes:
        spans: Grouped by size.
        drawn: Spans before any was left out.
        left_out: How many were left out, by reason.
        missing: Why nothing or little can be measured; "" nothing to say.
    """

    spans: tuple[CodeSpan, ...] = ()
    drawn: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    missing: str = ""


def choose(settings: EvaluateSettings, inputs: Mapping[str, Path]) -> ChosenSpans:
    """The spans to measure; none where no code is held out or `completion_spans` is 0."""
    per_size = settings.completion_spans
    if not per_size:
        return ChosenSpans()
    kept, test = inputs["filter.kept"], inputs["prompt.test"]
    files, code_rows = documents.held_out_files(kept, test)
    if not files:
        return ChosenSpans(missing=_none(code_rows) if code_rows else "")
    taken = files[: _FILES_PER_SPAN * per_size]
    each = min(_MOST_PER_FILE, -(-2 * per_size // len(taken)))
    texts = documents.read(kept, test, taken)
    most = _BYTES_PER_TOKEN * settings.max_new_tokens
    left_out = Counter[str]()
    drawn: dict[str, list[list[CodeSpan]]] = {size: [] for size in SIZES}
    for number, file in enumerate(taken, 1):
        of_file: dict[str, list[CodeSpan]] = {size: [] for size in SIZES}
        for text in texts.get(file, ()):
            for size, found in spans.draw(text, each, most, settings.seed, left_out).items():
                of_file[size] += found
        for size, found in of_file.items():
            drawn[size].append(sorted(found, key=lambda s: keyed_rank(s.name, settings.seed)))
        report("spans of held-out code", number, len(taken))
    in_turn = {
        # each size begins with other files, so that there are more of them altogether
        size: list(_distinct(_rotated(found, number * per_size)))
        for number, (size, found) in enumerate(drawn.items())
    }
    total = sum(map(len, in_turn.values()))
    known = in_training([s for found in in_turn.values() for s in found], kept, inputs)
    left_out[IN_TRAINING] += len(known)
    chosen = [
        span
        for found in in_turn.values()
        for span in [s for s in found if s.name not in known][:per_size]
    ]
    unit = DataCard.read(inputs["tokenize.data_card"]).unit
    return ChosenSpans(tuple(chosen), total, dict(left_out), _too_few(chosen, unit))


def _none(code_rows: int) -> str:
    return (
        f"Completion: 0 of {code_rows:,} rows of code are in the test split. Give it a larger "
        "share of the data in the prompt section."
    )


def _too_few(chosen: Sequence[CodeSpan], unit: str) -> str:
    """Why no claim can be made; "" if one can."""
    found = len({span.source.cluster for span in chosen})
    if found >= FEWEST_CLUSTERS:
        return ""
    return (
        f"Completion: {count_of(len(chosen), 'span')} of {count_of(found, f'held-out {unit}')}; "
        f"at least {count_of(FEWEST_CLUSTERS, unit)} can show a difference. Name more code in "
        "ingest.sources, or give the test split a larger share in the prompt section."
    )


def _rotated(files: list[list[CodeSpan]], by: int) -> list[list[CodeSpan]]:
    first = by % len(files)
    return files[first:] + files[:first]


def _distinct(files: Sequence[Sequence[CodeSpan]]) -> Iterator[CodeSpan]:
    """Spans of files in turn, each text once."""
    seen = set()
    for span in (s for turn in zip_longest(*files) for s in turn if s is not None):
        lines = tuple(span.lines())
        if lines not in seen:
            seen.add(lines)
            yield span


def in_training(found: Sequence[CodeSpan], kept: Path, inputs: Mapping[str, Path]) -> set[str]:
    """Names of the spans that a training row contains."""
    lines_of = {span.name: span.lines() for span in found}
    wanted = {line for lines in lines_of.values() for line in lines}
    spans_with: dict[str, set[str]] = {}
    for name, lines in lines_of.items():
        for line in lines:
            spans_with.setdefault(line, set()).add(name)
    size_of = {name: sum(map(len, lines)) for name, lines in lines_of.items()}
    train = _train_rows(inputs["prompt.train"])
    known: set[str] = set()
    columns = ["row_id", "kind", "instruction", "input", "output", "conversation"]
    for batch in read_batches(kept, columns=columns):
        for row in batch.to_pylist():
            if row["row_id"] not in train:
                continue
            shared = wanted.intersection(map(str.strip, _trained(row).split("\n")))
            for name in {name for line in shared for name in spans_with[line]} - known:
                covered = sum(len(line) for line in lines_of[name] if line in shared)
                if covered >= NEARLY_ALL * size_of[name]:
                    known.add(name)
    return known


def _train_rows(train: Path) -> set[str]:
    return set(pq.read_table(train, columns=["row_id"])["row_id"].to_pylist())


def _trained(row: Mapping[str, str]) -> str:
    """The text of a training row. That of files around another one is not trained, and the columns
    of infilling divide a line at the hole."""
    if row["kind"] == "context":
        return row["output"]
    if row["kind"] == "fill":
        hole = json.loads(row["conversation"])["fill"]
        return str(hole["prefix"] + hole["middle"] + hole["suffix"])
    return "\n".join([row["instruction"], row["input"], row["output"]])
