"""Prompts and completions -> token ids.

Prompt and completion are tokenized apart and joined, so the boundary is exact, and the model sees
at training the very prompt tokens that it sees when it is asked. EOS is appended by its id to every
row. The text's own "<|endoftext|>" and its like are tokenized as the letters they are: no data can
smuggle in a control token. What a tokenizer puts before a text by itself (BOS) is kept, as a part
of the prompt; nothing else is added but the tokenizer's own words where the text has marks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import AutoTokenizer
from transformers.utils import logging

from tasks.core.rows.row_cache_shards import Values
from tasks.core.text.special_tokens import Marks

ENCODED = pa.schema(
    [
        ("prompt_tokens", pa.int32()),
        ("completion_characters", pa.int32()),
        ("exact", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Batch:
    """Rows (row_id, prompt, completion), and the folder of the tokenizer."""

    tokenizer: str
    rows: pa.Table


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row: prompt (its first `prompt_tokens`), completion, EOS."""

    ids: list[int]
    prompt_tokens: int
    exact: bool  # the tokens give back the very text


class Encoder:
    """A fast tokenizer, set up for training text."""

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._marks = Marks(tokenizer)
        self.eos: int = tokenizer.eos_token_id

    def encode(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Encoded]:
        """Token ids of a batch of rows, each checked by decoding it again, or piece by piece.

        Raises:
            PipelineError: The tokenizer has no words for a mark in a text.
        """
        marks = self._marks
        before, after = marks.encode(prompts), marks.encode(completions)
        pairs = list(zip(prompts, completions, strict=True))
        doubtful = [i for i, pair in enumerate(pairs) if not all(map(marks.is_exact, pair))]
        texts = self._backend.decode_batch(
            [before[i] + after[i] for i in doubtful], skip_special_tokens=False
        )
        wrong = {
            i
            for i, text in zip(doubtful, texts, strict=True)
            if text != "".join(pairs[i]) and text != self._wanted(*pairs[i])
        }
        encoded = []
        for i, (p, c) in enumerate(zip(before, after, strict=True)):
            prefix = [] if marks.starts_itself(prompts[i]) else marks.prefix
            ids = [*prefix, *p, *c, self.eos]
            encoded.append(Encoded(ids, len(prefix) + len(p), i not in wrong))
        return encoded

    def _wanted(self, prompt: str, completion: str) -> str:
        """The text as the tokenizer writes marks and normalises letters (NFC, for GPT-NeoX and its
        children)."""
        normalizer = self._backend.normalizer
        texts = [self._marks.rendered(text) for text in (prompt, completion)]
        return "".join(normalizer.normalize_str(t) if normalizer else t for t in texts)


@lru_cache(maxsize=1)  # each process encodes many batches
def load(folder: str) -> Encoder:
    """The tokenizer of a folder as `base` writes it."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return Encoder(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    finally:
        logging.set_verbosity(level)


def encode_batch(batch: Batch) -> Values:
    """`ENCODED` and the token ids of each row."""
    prompts, completions = (batch.rows.column(n).to_pylist() for n in ("prompt", "completion"))
    encoded = load(batch.tokenizer).encode(prompts, completions)
    table = pa.table(
        [
            [row.prompt_tokens for row in encoded],
            [len(text) for text in completions],
            [row.exact for row in encoded],
        ],
        schema=ENCODED,
    )
    counts = np.array([len(row.ids) for row in encoded], dtype=np.int64)
    ids = chain.from_iterable(row.ids for row in encoded)
    return Values(table, np.fromiter(ids, dtype=np.int32, count=int(counts.sum())), counts)
