"""Prompts and completions -> token ids.

Prompt and completion are tokenized apart and joined, so the boundary is exact, and the model sees
at training the very prompt tokens that it sees when it is asked. EOS is appended by its id to every
row. The text's own "<|endoftext|>" and its like are tokenized as the letters they are: no data can
smuggle in a control token. What a tokenizer puts before a text by itself (BOS) is kept, as a part
of the prompt; nothing else is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row: prompt (its first `prompt_tokens`), completion, EOS."""

    ids: list[int]
    prompt_tokens: int
    exact: bool  # the tokens give back the very text


class Encoder:
    """A fast tokenizer, set up for training text."""

    def __init__(self, backend: Any, eos: int) -> None:
        self._backend = backend
        self.eos = eos
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self.prefix: list[int] = _prefix(backend)

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """The tokenizer of a folder as `base` writes it."""
        level = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        finally:
            logging.set_verbosity(level)
        return cls(tokenizer.backend_tokenizer, tokenizer.eos_token_id)

    def encode(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Encoded]:
        """Token ids of a batch of rows, each checked by decoding it again."""
        before = self._ids(prompts)
        after = self._ids(completions)
        texts = self._backend.decode_batch(
            [p + c for p, c in zip(before, after, strict=True)], skip_special_tokens=False
        )
        return [
            Encoded(
                [*self.prefix, *p, *c, self.eos],
                len(self.prefix) + len(p),
                text == prompt + completion
                or text == self._normal(prompt) + self._normal(completion),
            )
            for p, c, text, prompt, completion in zip(
                before, after, texts, prompts, completions, strict=True
            )
        ]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _normal(self, text: str) -> str:
        """Text as the tokenizer normalises it: NFC, for GPT-NeoX and its children."""
        normalizer = self._backend.normalizer
        return normalizer.normalize_str(text) if normalizer else text


def _prefix(backend: Any) -> list[int]:
    """Ids that the tokenizer's own convention puts before a text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    dressed: list[int] = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(dressed) - len(bare) + 1):
        if dressed[start : start + len(bare)] == bare:
            return dressed[:start]
    return []
