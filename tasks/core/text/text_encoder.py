"""Encoding of texts and control tokens: by a cache where texts are independent, else by offsets."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.core.text.bpe_cache import BpeCache
from tasks.core.text.offset_encoder import OffsetEncoder, Tokens
from tasks.core.text.special_tokens import Pieces


class TextEncoder:
    """Encodes rows of parts with one tokenizer, which is set up for that.

    Attributes:
        is_byte_level: The ids of a text depend neither on what stands before it nor on where it
            starts.
        prefix: Ids that the tokenizer itself puts before a text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        self._cache = BpeCache.of(self._backend)
        self._by_offsets: OffsetEncoder | None = None
        self.is_byte_level = _is_byte_level(self._backend)
        self.prefix = _prefix(self._backend)

    def encode(self, rows: Sequence[Pieces]) -> list[Tokens]:
        """Token ids of rows of parts; the cache encodes those that are one text."""
        is_text = [self.is_byte_level and _is_text(row) for row in rows]
        texts = [
            str(row[0][0]) if row else "" for row, yes in zip(rows, is_text, strict=True) if yes
        ]
        others = [row for row, yes in zip(rows, is_text, strict=True) if not yes]
        by_cache = iter(self._of_texts(texts))
        by_offsets = iter(self.offsets.encode(others) if others else [])
        return [next(by_cache if yes else by_offsets) for yes in is_text]

    def _of_texts(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of texts without control tokens."""
        cache = self._cache
        cached = [text.isascii() and cache is not None for text in texts]
        rest = [text for text, yes in zip(texts, cached, strict=True) if not yes]
        by_tokenizer = iter(self._backend.encode_batch_fast(rest, add_special_tokens=False))
        ids = [
            cache.encode(text) if yes and cache else next(by_tokenizer).ids
            for text, yes in zip(texts, cached, strict=True)
        ]
        # what the BPE cache has checked pre-token by pre-token needs no decoding
        doubtful = [i for i, yes in enumerate(cached) if not (yes and cache and cache.exact)]
        decoded = self._backend.decode_batch([ids[i] for i in doubtful], skip_special_tokens=False)
        wrong = {
            i
            for i, text in zip(doubtful, decoded, strict=True)
            if text != texts[i] and text != self._normalized(texts[i])
        }
        return [Tokens(own, np.zeros(len(own), bool), i not in wrong) for i, own in enumerate(ids)]

    def _normalized(self, text: str) -> str:
        """A text in the tokenizer's Unicode normal form (NFC for models of the GPT-NeoX family),
        which loses nothing."""
        normalizer = self._backend.normalizer
        return str(normalizer.normalize_str(text)) if normalizer else text

    @property
    def offsets(self) -> OffsetEncoder:
        """The encoder of rows as one text each."""
        if self._by_offsets is None:
            self._by_offsets = OffsetEncoder(self._tokenizer)
        return self._by_offsets


def _is_text(pieces: Pieces) -> bool:
    return not pieces or (len(pieces) == 1 and isinstance(pieces[0][0], str))


def _is_byte_level(backend: Any) -> bool:
    """Whether a text's ids don't depend on what text stands before it, nor on where it starts."""
    pre_tokenizer = backend.pre_tokenizer
    spec = json.loads(pre_tokenizer.__getstate__()) if pre_tokenizer else {}
    steps = spec.get("pretokenizers") or [spec]
    return any(s.get("type") == "ByteLevel" and not s["add_prefix_space"] for s in steps)


def _prefix(backend: Any) -> list[int]:
    """Ids that the tokenizer itself puts before a text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    whole: list[int] = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start]
    return []
