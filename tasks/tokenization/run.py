"""Stage `tokenize`: prompts -> train/, validation/, test/, each rows.parquet and windows.parquet.

Rows that are too long, and texts with too few characters per token, are dropped and listed in
dropped.parquet, never cut; only plain text becomes several samples. A row that an earlier run has
tokenized is not tokenized again. Rows are stored in the order of the windows, so that training
reads its file from front to back.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.cache.digest_cache import sha256
from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import ROWS_FILE, WINDOWS_FILE, Windows
from tasks.core.models.packing import Packing, pack_best_fit
from tasks.core.models.pretrained import read_tokenizer
from tasks.core.progress import say
from tasks.core.rows import data_card, row_schema
from tasks.core.rows.hash_rank import shuffled
from tasks.core.rows.parquet import TableWriter, read_batches
from tasks.core.rows.row_cache import by_content, fill, opened
from tasks.core.rows.row_cache_shards import Shards
from tasks.core.settings.config import View
from tasks.core.stage import Summary, Work
from tasks.core.system.parallel import worker_count
from tasks.core.text.bare_tokenizer import BareTokenizer
from tasks.core.text.row_encoder import RowEncoder
from tasks.tokenization.audit import Audit, audit, check, check_exact
from tasks.tokenization.encode import COLUMNS, ENCODED, PromptBatch, encode_batch, keep
from tasks.tokenization.epoch_estimate import estimate_epoch, lines
from tasks.tokenization.remedies import check_not_empty, notes
from tasks.tokenization.row_checks import DROPPED, INEXACT, CheckedRows, RowLimits, check_rows
from tasks.tokenization.samples import Samples

SPLITS = ("train", "validation", "test")
BATCH_ROWS = 1000  # that are encoded at once; also of a row group of the result
ROWS_FOR_PROCESSES = 60_000  # a process must load the tokenizer first, which takes seconds
LIMITS_FILE = "model_limits.json"
# most high bytes of token ids are zero; stored one after another, they compress to almost nothing
ENCODINGS = {"input_ids.list.element": "BYTE_STREAM_SPLIT"}


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """Run the stage; see the module."""
    settings = config.tokenize
    folder = inputs["base.tokenizer"]
    model_limits = json.loads((folder / LIMITS_FILE).read_text(encoding="utf-8"))
    model_tokens = int(model_limits["max_tokens"])
    limit = row_limit(settings.max_tokens, settings.window_tokens, model_tokens)
    limits = RowLimits(limit, settings.min_characters_per_token)
    files = {split: inputs[f"prompt.{split}"] for split in SPLITS}
    audits: dict[str, Audit] = {}
    counts: Counter[str] = Counter()
    arguments = [*_content_of(folder), ("loss_on", settings.loss_on)]
    tokenizer = work.scratch / "bare_tokenizer.json"
    bare, encoder = open_tokenizer(str(folder))
    keep(encoder, tokenizer)
    rows_in = sum(pq.read_metadata(file).num_rows for file in files.values())
    if rows_in >= ROWS_FOR_PROCESSES:
        bare.write(tokenizer)
    with (
        opened(work, arguments, ENCODED, np.int32) as shards,
        TableWriter(work.out / "dropped.parquet", DROPPED) as dropped,
    ):
        encoded = encode(
            files, tokenizer, settings.loss_on, shards, limits, work, config.hardware.workers
        )
        for rows in encoded:
            check_exact(rows.split, rows.counts[INEXACT], len(rows.tokens))
            check_not_empty(rows, limits, model_tokens, settings.window_tokens)
            total = len(rows.samples.rows)
            order = (
                shuffled(rows.all_ids(), settings.seed) if settings.shuffle else np.arange(total)
            )
            packing = pack_best_fit(rows.samples.tokens, order, settings.window_tokens)
            write(work.out / rows.split, packing, rows, shards)
            dropped.add_table(rows.dropped_table())
            audits[rows.split] = audit(
                Windows.open(work.out / rows.split),
                settings.window_tokens,
                encoder.ends,
                rows.counts[INEXACT],
                rows.going_on(),
            )
            check(rows.split, audits[rows.split])
            counts.update({f"{rows.split}_{why}": n for why, n in rows.counts.items()})
            for line in notes(rows, limits, model_tokens, settings.window_tokens):
                say(line)
    written = {f"tokenize.{split}": work.out / split for split in SPLITS}
    data_card.count({**inputs, **written}).write(work.out / "data_card.json")
    numbers = estimate_epoch(audits["train"], counts["train_too_long"], limit)
    for line in lines(numbers):
        say(line)
    return _summary(audits, +counts, rows_in, numbers, work.out)


@lru_cache(maxsize=1)  # loading takes seconds
def open_tokenizer(folder: str) -> tuple[BareTokenizer, RowEncoder]:
    """The tokenizer in a folder, an output of the stage `base`, and its encoder."""
    bare = BareTokenizer.of(read_tokenizer(Path(folder)))
    return bare, RowEncoder(bare)


def row_limit(max_tokens: int | None, window_tokens: int, model_tokens: int) -> int:
    """The longest row in tokens.

    Raises:
        PipelineError: The setting is more than the model's limit.
    """
    if max_tokens is not None and max_tokens > model_tokens:
        raise PipelineError(
            f"tokenize.max_tokens is {max_tokens}, the base model takes {model_tokens}",
            f"Set tokenize.max_tokens to {model_tokens} or less.",
        )
    return min(window_tokens, model_tokens) if max_tokens is None else max_tokens


def _content_of(tokenizer: Path) -> list[tuple[str, str]]:
    """Name and digest of each file of a tokenizer: all that decides the ids of a text."""
    return [(path.name, sha256(path)) for path in sorted(tokenizer.iterdir()) if path.is_file()]


def encode(
    files: Mapping[str, Path],
    tokenizer: Path,
    loss_on: str,
    shards: Shards,
    limits: RowLimits,
    work: Work,
    workers: int,
) -> Iterator[CheckedRows]:
    """Tokenize all splits, and yield each with its checks."""
    batches = (read_batches(file, BATCH_ROWS, COLUMNS) for file in files.values())
    fill(
        shards,
        by_content(chain.from_iterable(batches)),
        encode_batch,
        partial(PromptBatch, str(tokenizer), loss_on),
        work,
        workers=worker_count(workers),
        batch_rows=BATCH_ROWS,
        rows_for_processes=ROWS_FOR_PROCESSES,
        progress=("tokenize", sum(pq.read_metadata(file).num_rows for file in files.values())),
    )
    encoded, tokens, first = shards.table(ENCODED.names), shards.counts(), 0
    for split, file in files.items():
        row_ids = pq.read_table(file, columns=["row_id"]).column("row_id").combine_chunks()
        own = slice(first, first + len(row_ids))
        part = encoded.slice(first, len(row_ids))
        yield check_rows(split, first, row_ids, tokens[own], part, limits)
        first = own.stop


def write(folder: Path, packing: Packing, rows: CheckedRows, shards: Shards) -> None:
    """Write the samples of a split in the order of their windows, and the packing plan.

    Args:
        folder: Folder of the split, which is created.
        packing: Windows of indexes into the samples.
        rows: The split.
        shards: The row cache with the token ids.
    """
    folder.mkdir()
    stored = packing.rows
    is_single = rows.is_single()
    schema = row_schema.TOKENS if is_single.all() else row_schema.SPANNED_TOKENS
    with TableWriter(folder / ROWS_FILE, schema, BATCH_ROWS, ENCODINGS) as writer:
        for start in range(0, len(stored), BATCH_ROWS):
            chunk = stored[start : start + BATCH_ROWS]
            own = rows.samples.take(chunk)
            spans = rows.spans.cut(own)
            ends = np.concatenate([[0], np.cumsum(own.tokens)]).astype(np.int32)
            columns = [
                pa.array(rows.ids(chunk), pa.string()),
                pa.ListArray.from_arrays(pa.array(ends), pa.array(_token_ids(rows, own, shards))),
                pa.array(spans.starts, pa.int32()),
                pa.ListArray.from_arrays(
                    pa.array(spans.offsets, pa.int32()), pa.array(spans.values, pa.int32())
                ),
            ]
            writer.add_table(pa.table(columns[: len(schema)], schema=schema))
    bounds = pa.array(np.append(packing.starts, len(stored)), pa.int32())
    tokens = np.add.reduceat(rows.samples.tokens[stored], packing.starts)
    members = pa.ListArray.from_arrays(bounds, pa.array(np.arange(len(stored)), pa.int64()))
    plan = [pa.array(np.arange(len(tokens))), members, pa.array(tokens)]
    plan = [column.cast(f.type) for column, f in zip(plan, row_schema.WINDOWS, strict=True)]
    pq.write_table(
        pa.table(plan, schema=row_schema.WINDOWS), folder / WINDOWS_FILE, compression="zstd"
    )


def _token_ids(rows: CheckedRows, samples: Samples, shards: Shards) -> NDArray[np.int32]:
    """The token ids of some samples, one after another."""
    if (samples.tokens == rows.tokens[samples.rows]).all():
        return shards.numbers_of(rows.first + samples.rows)
    # a text may be much longer than its samples: one at a time
    parts = (shards.numbers(rows.first + row)[a:b] for row, a, b in samples.places())
    return np.concatenate(list(parts))


def _summary(
    audits: Mapping[str, Audit],
    counts: Counter[str],
    rows_in: int,
    numbers: Mapping[str, Any],
    out: Path,
) -> Summary:
    """Write audit.json, and summarize it."""
    content: dict[str, Any] = {"preflight": numbers, "dropped": dict(sorted(counts.items()))}
    content |= {split: found.as_json() for split, found in audits.items()}
    text = json.dumps(content, indent=2) + "\n"
    (out / "audit.json").write_text(text, encoding="utf-8")
    train = audits["train"]
    rows_out = sum(found.rows for found in audits.values())
    kept = rows_in - counts.total()
    parts = f" in {rows_out:,} parts" if rows_out > kept else ""  # texts longer than a window
    return Summary(
        f"{kept:,} of {rows_in:,} rows{parts}; to train on: {train.tokens:,} tokens in "
        f"{train.windows:,} windows, {100 * (1 - numbers['padding_share']):.1f} % full, "
        f"{100 * numbers['trained_share']:.1f} % with loss",
        rows_in=rows_in,
        rows_out=rows_out,
        counts=dict(sorted(counts.items())),
        metrics={f"{split}_tokens": found.tokens for split, found in audits.items()}
        | {f"{split}_windows": found.windows for split, found in audits.items()}
        | {"train_trained_share": numbers["trained_share"], "max_tokens": numbers["max_tokens"]},
    )
