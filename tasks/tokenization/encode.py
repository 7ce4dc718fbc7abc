"""Prompts and completions, or conversations -> token ids and the spans that are trained.

A "<|endoftext|>" in the data is tokenized as ordinary characters, so that data can't inject control
tokens. Nothing is added to a row but what `tasks.core.text.row_encoder` describes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.core.rows.row_cache_file import Values
from tasks.core.system.parallel import without_gc
from tasks.core.text.bare_tokenizer import BareTokenizer
from tasks.core.text.conversation import parse
from tasks.core.text.row_encoder import Encoded, RowEncoder

ENCODED = pa.schema(
    [
        ("spans", pa.list_(pa.int32())),  # start and end of each run of trained tokens
        ("text_bytes", pa.int32()),  # of the trained text
        ("text_tokens", pa.int32()),  # of the trained text, without control tokens
        ("exact", pa.bool_()),
        ("closed", pa.bool_()),  # has to end in a trained end token
        ("can_split", pa.bool_()),  # plain text
        ("problem", pa.string()),  # why the chat template refuses the row; "" if it doesn't
    ]
)
COLUMNS = ["row_id", "prompt", "completion", "conversation", "kind"]


@dataclass(frozen=True)
class PromptBatch:
    """Rows (`COLUMNS`) to encode, the file of a `BareTokenizer`, and the setting `loss_on`."""

    tokenizer: str
    loss_on: str
    rows: pa.Table


_LOADED: dict[str, RowEncoder] = {}  # loading takes seconds, and a process encodes many batches


def keep(encoder: RowEncoder, file: Path) -> None:
    """Let `load` return an encoder in this process, without the file that worker processes need."""
    _LOADED.clear()
    _LOADED[str(file)] = encoder


def load(file: str) -> RowEncoder:
    """The encoder for the tokenizer in the file of a `BareTokenizer`."""
    if file not in _LOADED:
        _LOADED.clear()
        _LOADED[file] = RowEncoder(BareTokenizer.read(Path(file)))
    return _LOADED[file]


@without_gc()
def encode_batch(batch: PromptBatch) -> Values:
    """`ENCODED` and the token ids of each row."""
    rows = batch.rows.to_pylist()
    encoder = load(batch.tokenizer)
    pairs = [row for row in rows if not row["conversation"]]
    by_pair = iter(encoder.pairs([r["prompt"] for r in pairs], [r["completion"] for r in pairs]))
    chats = [parse(row["conversation"]) for row in rows if row["conversation"]]
    by_chat = iter(encoder.conversations(chats, batch.loss_on))
    encoded = [next(by_chat if row["conversation"] else by_pair) for row in rows]
    if batch.loss_on == "everything":
        encoded = [row if row.problem else row.with_all_trained() for row in encoded]
    return _values(encoded, [row["kind"] == "text" for row in rows])


def _values(encoded: Sequence[Encoded], can_split: list[bool]) -> Values:
    table = pa.table(
        [
            [list(chain.from_iterable(row.spans)) for row in encoded],
            [row.text_bytes for row in encoded],
            [row.text_tokens for row in encoded],
            [row.exact for row in encoded],
            [row.is_closed for row in encoded],
            can_split,
            [row.problem for row in encoded],
        ],
        schema=ENCODED,
    )
    counts = np.array([len(row.ids) for row in encoded], dtype=np.int64)
    ids = chain.from_iterable(row.ids for row in encoded)
    return Values(table, np.fromiter(ids, dtype=np.int32, count=int(counts.sum())), counts)
