"""BPE cache: the ids of pre-tokens, so that byte-level BPE runs once for each different one.

A byte-level BPE tokenizer splits a text into pre-tokens (a word, a run of spaces, ...) by a regular
expression, and encodes each on its own. Code repeats few different pre-tokens, so caching their ids
makes encoding several times as fast. The cache is used only where the ids are sure to be the same:
for ASCII texts, and for tokenizers that split like GPT-2, with single digits (StarCoder, SmolLM) or
without (GPT-NeoX, StableLM). For all others there is no `BpeCache`, and the tokenizer itself
encodes.
"""

import json
import re
from itertools import chain
from typing import Any

MAX_CACHED = 400_000  # pre-tokens; about 100 MB
MAX_CHARACTERS = 48  # of a cached pre-token; longer ones hardly ever repeat
_REST = r" ?[A-Za-z]+|{digits}| ?[^\s\dA-Za-z]+|{blanks}|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d|" + _REST.format(digits=r" ?\d+", blanks=r"\s+(?!\S)")
# digits are split off first, so spaces before a digit count as spaces at the end of a text
SINGLE_DIGITS = r"'s|'t|'re|'ve|'m|'ll|'d|" + _REST.format(digits=r"\d", blanks=r"\s+(?![^\s\d])")
# text in which the ways to split differ: contractions, digits, runs of spaces, control characters
PROBE = """def f(x, y2=10):
    '''Don't  stop it's 1,234 -- we'll\tsee.'''\r\n\n\n    if x  != y2 [0]:\x0b
        return  "a\\n" + 3.14e-10 , \x1c\x1f x_1'd  \n \n"""


class BpeCache:
    """Encodes ASCII texts with one tokenizer.

    Args:
        backend: The tokenizer.
        pattern: Regular expression of a pre-token.
        added: Ids of the tokens that were added to the vocabulary and are not special. The
            tokenizer looks for these before it splits.
    """

    def __init__(self, backend: Any, pattern: str, added: dict[str, int]) -> None:
        self._ids = _PreTokenIds(backend)
        self._find = re.compile(pattern, re.ASCII).findall
        self._added = added
        longest_first = sorted(map(re.escape, added), key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(longest_first)})").split if added else None

    @classmethod
    def of(cls, backend: Any) -> "BpeCache | None":
        """The cache for a tokenizer; None if its ids might not be those of the tokenizer.

        Args:
            backend: A `tokenizers.Tokenizer` that encodes special tokens as ordinary text.
        """
        spec = json.loads(backend.to_str())
        pattern = _pattern(spec.get("pre_tokenizer"))
        # with dropout, ids are random
        is_plain = spec["model"]["type"] == "BPE" and not spec["model"].get("dropout")
        # Unicode normal forms leave ASCII as it is
        normalizer = (spec.get("normalizer") or {"type": "NFC"})["type"]
        added = [token for token in spec["added_tokens"] if not token["special"]]
        is_plain &= not any(t["lstrip"] or t["rstrip"] or t["single_word"] for t in added)
        if pattern is None or not is_plain or normalizer not in ("NFC", "NFD", "NFKC", "NFKD"):
            return None
        cache = cls(backend, pattern, {t["content"]: t["id"] for t in added})
        expected = backend.encode(PROBE, add_special_tokens=False).ids
        return cache if cache.encode(PROBE) == expected else None

    @property
    def exact(self) -> bool:
        """Whether all ids so far decode to the text that they encode."""
        return self._ids.exact

    def encode(self, text: str) -> list[int]:
        """Ids of an ASCII text."""
        parts = self._split(text) if self._split else [text]
        ids: list[int] = []
        for number, part in enumerate(parts):
            if number % 2:  # `re.split` puts what it splits at in the odd places
                ids.append(self._added[part])
            else:
                ids.extend(chain.from_iterable(map(self._ids.__getitem__, self._find(part))))
        return ids


class _PreTokenIds(dict[str, tuple[int, ...]]):
    """Pre-token -> ids, encoded on first use: a `dict` subclass, as looking up is the hot path."""

    def __init__(self, backend: Any) -> None:
        super().__init__()
        self._backend = backend
        self.exact = True

    def __missing__(self, pre_token: str) -> tuple[int, ...]:
        ids = tuple(self._backend.encode(pre_token, add_special_tokens=False).ids)
        self.exact &= self._backend.decode(ids, skip_special_tokens=False) == pre_token
        if len(pre_token) <= MAX_CHARACTERS:
            if len(self) >= MAX_CACHED:
                self.clear()
            self[pre_token] = ids
        return ids


def _pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The regular expression by which a pre-tokenizer splits ASCII text; None if not known."""
    if not pre_tokenizer:
        return None
    *before, last = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    splits_like_gpt2 = last["type"] == "ByteLevel" and last.get("use_regex", True)
    if not splits_like_gpt2 or last["add_prefix_space"]:
        return None
    if not before:
        return GPT2
    digits = {"type": "Digits", "individual_digits": True}
    return SINGLE_DIGITS if before == [digits] else None
