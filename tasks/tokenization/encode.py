"""Prompts and completions -> token ids.

Prompt and completion are tokenized separately and then joined. So the boundary of the label mask is
exact, and training sees the same prompt tokens as generation. Every row ends with the id of EOS.
A "<|endoftext|>" in the data is tokenized as ordinary characters, so that data can't inject control
tokens. Tokens that the tokenizer adds before a text (BOS) are kept as part of the prompt. Nothing
else is added, except the tokenizer's special tokens for the placeholders of a prompt.
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
from tasks.core.text.special_tokens import SpecialTokenEncoder

ENCODED = pa.schema(
    [
        ("prompt_tokens", pa.int32()),
        ("completion_characters", pa.int32()),
        ("exact", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class PromptBatch:
    """Rows (row_id, prompt, completion) to encode, and the folder of the tokenizer."""

    tokenizer: str
    rows: pa.Table


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row: prompt (the first `prompt_tokens`), completion, EOS."""

    ids: list[int]
    prompt_tokens: int
    exact: bool  # decoding the ids gives back the text


class Encoder:
    """A fast tokenizer, configured for training text."""

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._special = SpecialTokenEncoder(tokenizer)
        self.eos: int = tokenizer.eos_token_id

    def encode(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Encoded]:
        """Token ids of a batch of rows, each checked by decoding the row or each of its pre-tokens.

        Raises:
            MissingTokenError: The tokenizer has no tokens for a placeholder in a text.
        """
        special = self._special
        before, after = special.encode(prompts), special.encode(completions)
        pairs = list(zip(prompts, completions, strict=True))
        # what the BPE cache has checked pre-token by pre-token needs no decoding
        doubtful = [i for i, pair in enumerate(pairs) if not all(map(special.is_exact, pair))]
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
            prefix = special.prefix_of(prompts[i])
            ids = [*prefix, *p, *c, self.eos]
            encoded.append(Encoded(ids, len(prefix) + len(p), i not in wrong))
        return encoded

    def _wanted(self, prompt: str, completion: str) -> str:
        """The text with special tokens in place of placeholders, and with the tokenizer's Unicode
        normalization (NFC for models of the GPT-NeoX family), which is no loss either."""
        normalizer = self._backend.normalizer
        texts = [self._special.rendered(text) for text in (prompt, completion)]
        return "".join(normalizer.normalize_str(t) if normalizer else t for t in texts)


@lru_cache(maxsize=1)  # loading takes seconds, and each process encodes many batches
def load(folder: str) -> Encoder:
    """The encoder for the tokenizer in a folder, an output of the stage `base`."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return Encoder(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    finally:
        logging.set_verbosity(level)


def encode_batch(batch: PromptBatch) -> Values:
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
