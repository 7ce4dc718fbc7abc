"""Stage `tokenize`: prompts -> train/, validation/, test/, each rows.parquet and windows.parquet.

Rows that are too long are dropped and counted, never cut. Rows are stored in the order of the
windows, so that training reads its file from front to back.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core import schemas
from tasks.core.config import View
from tasks.core.errors import PipelineError
from tasks.core.progress import report, say
from tasks.core.stage import Summary, Work
from tasks.core.windows import ROWS_FILE, WINDOWS_FILE, Windows
from tasks.tokenization.audit import Audit, audit, check, check_exact
from tasks.tokenization.encode import Encoded, Encoder
from tasks.tokenization.packing import consecutive, pack, shuffled
from tasks.tokenization.preflight import lines, preflight
from tasks.tokenization.spool import Spool

SPLITS = ("train", "validation", "test")
BATCH_ROWS = 1000
LIMITS_FILE = "model_limits.json"


@dataclass
class Rows:
    """What is known of a split's kept rows before they have their place."""

    row_ids: list[str]
    prompt_tokens: list[int]
    dropped: Counter[str]
    read: int = 0
    shortest: int = 0
    longest: int = 0


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """See the module."""
    settings = config.tokenize
    encoder = Encoder.load(inputs["base.tokenizer"])
    limits = json.loads((inputs["base.tokenizer"] / LIMITS_FILE).read_text(encoding="utf-8"))
    limit = row_limit(settings.max_tokens, settings.window_tokens, int(limits["max_tokens"]))
    audits: dict[str, Audit] = {}
    counts: Counter[str] = Counter()
    dropped: dict[str, Counter[str]] = {}
    rows_in = 0
    for split in SPLITS:
        with Spool(work.scratch / f"{split}.tokens") as spool:
            rows = encode_split(inputs[f"prompt.{split}"], split, encoder, limit, spool)
            check_exact(split, rows.dropped["inexact"], rows.read)
            check_not_empty(split, rows, limit)
            order = (
                shuffled(rows.row_ids, settings.seed)
                if settings.shuffle
                else np.arange(len(rows.row_ids))
            )
            windows = pack(spool.lengths(), order, settings.window_tokens)
            folder = work.out / split
            folder.mkdir()
            write(folder, windows, rows, spool, settings.loss_on)
        audits[split] = audit(
            Windows.open(folder), settings.window_tokens, encoder.eos, rows.dropped["inexact"]
        )
        check(split, audits[split])
        rows_in += rows.read
        counts.update({f"{split}_{why}": number for why, number in rows.dropped.items()})
        dropped[split] = rows.dropped
    numbers = preflight(audits["train"], dropped["train"], limit)
    for line in lines(numbers):
        say(line)
    return _summary(audits, counts, rows_in, numbers, work.out)


def row_limit(max_tokens: int | None, window_tokens: int, model_tokens: int) -> int:
    """The longest row in tokens.

    Raises:
        PipelineError: More is asked for than the model can take.
    """
    if max_tokens is not None and max_tokens > model_tokens:
        raise PipelineError(
            f"tokenize.max_tokens is {max_tokens}, the base model takes {model_tokens}",
            f"Set tokenize.max_tokens to {model_tokens} or less.",
        )
    return min(window_tokens, model_tokens) if max_tokens is None else max_tokens


def encode_split(file: Path, split: str, encoder: Encoder, limit: int, spool: Spool) -> Rows:
    """Tokenize a split into the spool, leaving out what can't be trained on."""
    parquet = pq.ParquetFile(file)
    total = parquet.metadata.num_rows
    rows = Rows([], [], Counter())
    for batch in parquet.iter_batches(BATCH_ROWS, columns=["row_id", "prompt", "completion"]):
        ids, prompts, completions = (column.to_pylist() for column in batch.columns)
        kept = list(_keep(zip(ids, encoder.encode(prompts, completions), strict=True), limit, rows))
        spool.append([encoded.ids for _, encoded in kept])
        rows.row_ids.extend(row_id for row_id, _ in kept)
        rows.prompt_tokens.extend(encoded.prompt_tokens for _, encoded in kept)
        rows.read += len(ids)
        report(f"tokenize {split}", rows.read, total)
    return rows


def _keep(
    batch: Iterator[tuple[str, Encoded]], limit: int, rows: Rows
) -> Iterator[tuple[str, Encoded]]:
    """Pass on the rows that can be trained on; count the others by reason."""
    for row_id, encoded in batch:
        length = len(encoded.ids)
        rows.longest = max(rows.longest, length)
        rows.shortest = min(rows.shortest or length, length)
        if not encoded.exact:
            rows.dropped["inexact"] += 1
        elif encoded.prompt_tokens == length - 1:
            rows.dropped["empty_completion"] += 1
        elif length > limit:
            rows.dropped["too_long"] += 1
        else:
            yield row_id, encoded


def check_not_empty(split: str, rows: Rows, limit: int) -> None:
    """Refuse a split that nothing is left of.

    Raises:
        PipelineError: All its rows were dropped.
    """
    if not rows.row_ids:
        reasons = ", ".join(f"{number:,} {why}" for why, number in sorted(rows.dropped.items()))
        raise PipelineError(
            f"{split}: none of {rows.read:,} rows is left ({reasons or 'it came empty'}); they "
            f"have {rows.shortest:,} to {rows.longest:,} tokens, max_tokens is {limit:,}",
            "Raise tokenize.max_tokens (and tokenize.window_tokens), or filter for shorter rows.",
        )


def write(folder: Path, windows: list[list[int]], rows: Rows, spool: Spool, loss_on: str) -> None:
    """Write rows in the order of their windows, and the windows over them."""
    lengths = spool.lengths()
    stored = list(chain.from_iterable(windows))
    with pq.ParquetWriter(folder / ROWS_FILE, schemas.TOKENS, compression="zstd") as writer:
        for start in range(0, len(stored), BATCH_ROWS):
            chunk = stored[start : start + BATCH_ROWS]
            writer.write_table(_table(chunk, rows, spool, loss_on), row_group_size=BATCH_ROWS)
    tokens = [int(lengths[window].sum()) for window in windows]
    plan = [list(range(len(windows))), consecutive(windows), tokens]
    pq.write_table(
        pa.table(plan, schema=schemas.WINDOWS), folder / WINDOWS_FILE, compression="zstd"
    )


def _table(chunk: Sequence[int], rows: Rows, spool: Spool, loss_on: str) -> pa.Table:
    """Some rows as `schemas.TOKENS`."""
    tokens, places = spool.take(chunk)
    masked = [rows.prompt_tokens[i] if loss_on == "output" else 0 for i in chunk]
    columns = [
        pa.array([rows.row_ids[i] for i in chunk], pa.string()),
        pa.ListArray.from_arrays(pa.array(places), pa.array(tokens)),
        pa.array(masked, pa.int32()),
    ]
    return pa.table(columns, schema=schemas.TOKENS)


def _summary(
    audits: Mapping[str, Audit],
    counts: Counter[str],
    rows_in: int,
    numbers: Mapping[str, Any],
    out: Path,
) -> Summary:
    """Write audit.json and tell the numbers that matter."""
    content: dict[str, Any] = {"preflight": numbers, "dropped": dict(sorted(counts.items()))}
    content |= {split: found.as_json() for split, found in audits.items()}
    text = json.dumps(content, indent=2) + "\n"
    (out / "audit.json").write_text(text, encoding="utf-8")
    train = audits["train"]
    rows_out = sum(found.rows for found in audits.values())
    return Summary(
        f"{rows_out:,} of {rows_in:,} rows; to train on: {train.tokens:,} tokens in "
        f"{train.windows:,} windows, {1 - numbers['padding_share']:.1%} full, "
        f"{numbers['trained_share']:.1%} with loss",
        rows_in=rows_in,
        rows_out=rows_out,
        counts=dict(sorted(counts.items())),
        metrics={f"{split}_tokens": found.tokens for split, found in audits.items()}
        | {f"{split}_windows": found.windows for split, found in audits.items()}
        | {"train_trained_share": numbers["trained_share"], "max_tokens": numbers["max_tokens"]},
    )
