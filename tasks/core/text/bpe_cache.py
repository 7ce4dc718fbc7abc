"""Byte-level BPE with a memory: the tokenizer's own ids, several times sooner.

Such a tokenizer cuts a text into pieces (a word, a run of blanks, ...) by a fixed expression and
turns each piece into ids by itself. Code is made of few different pieces; so each is given to the
tokenizer once and remembered. Only where that is sure to give the same ids: for texts of ASCII
letters, and tokenizers that cut as GPT-2 does, with single digits (StarCoder, SmolLM) or without
(GPT-NeoX, StableLM). For all others there is no `Pieces`, and the tokenizer does the work.
"""

import json
import re
from itertools import chain
from typing import Any

MAX_PIECES = 400_000  # remembered; about 100 MB
MAX_REMEMBERED = 48  # characters of a piece; longer ones hardly come twice
_REST = r" ?[A-Za-z]+|{digits}| ?[^\s\dA-Za-z]+|{blanks}|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d|" + _REST.format(digits=r" ?\d+", blanks=r"\s+(?!\S)")
# digits are cut off first, so blanks before one are blanks at an end
SINGLE_DIGITS = r"'s|'t|'re|'ve|'m|'ll|'d|" + _REST.format(digits=r"\d", blanks=r"\s+(?![^\s\d])")
PROBE = """def f(x, y2=10):
    '''Don't  stop it's 1,234 -- we'll\tsee.'''\r\n\n\n    if x  != y2 [0]:\x0b
        return  "a\\n" + 3.14e-10 , \x1c\x1f x_1'd  \n \n"""


class Pieces:
    """The ids of pieces of one tokenizer."""

    def __init__(self, backend: Any, pattern: str, added: dict[str, int]) -> None:
        self._known = _Known(backend)
        self._find = re.compile(pattern, re.ASCII).findall
        self._added = added
        longest_first = sorted(map(re.escape, added), key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(longest_first)})").split if added else None

    @classmethod
    def of(cls, backend: Any) -> "Pieces | None":
        """The pieces of a tokenizer (`tokenizers.Tokenizer`, special tokens taken as letters); None
        where they would not be sure to be its own."""
        told = json.loads(backend.to_str())
        pattern = _pattern(told.get("pre_tokenizer"))
        is_plain = told["model"]["type"] == "BPE" and not told["model"].get("dropout")
        normalizer = (told.get("normalizer") or {"type": "NFC"})["type"]
        added = [token for token in told["added_tokens"] if not token["special"]]
        is_plain &= not any(t["lstrip"] or t["rstrip"] or t["single_word"] for t in added)
        if pattern is None or not is_plain or normalizer not in ("NFC", "NFD", "NFKC", "NFKD"):
            return None
        made = cls(backend, pattern, {t["content"]: t["id"] for t in added})
        wanted = backend.encode(PROBE, add_special_tokens=False).ids
        return made if made.encode(PROBE) == wanted else None

    @property
    def exact(self) -> bool:
        """Whether the ids of every piece so far give back the piece."""
        return self._known.exact

    def encode(self, text: str) -> list[int]:
        """Ids of an ASCII text."""
        if self._split is None:
            return list(chain.from_iterable(map(self._known.__getitem__, self._find(text))))
        ids: list[int] = []
        for number, part in enumerate(self._split(text)):
            if number % 2:
                ids.append(self._added[part])
            else:
                ids.extend(chain.from_iterable(map(self._known.__getitem__, self._find(part))))
        return ids


class _Known(dict[str, tuple[int, ...]]):
    """Piece -> ids, asked for at first sight."""

    def __init__(self, backend: Any) -> None:
        super().__init__()
        self._backend = backend
        self.exact = True

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = tuple(self._backend.encode(piece, add_special_tokens=False).ids)
        self.exact &= self._backend.decode(ids, skip_special_tokens=False) == piece
        if len(piece) <= MAX_REMEMBERED:
            if len(self) >= MAX_PIECES:
                self.clear()
            self[piece] = ids
        return ids


def _pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """What finds the pieces that a pre-tokenizer cuts ASCII text into; None: not known."""
    if not pre_tokenizer:
        return None
    *before, last = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    cuts_as_gpt2 = last["type"] == "ByteLevel" and last.get("use_regex", True)
    if not cuts_as_gpt2 or last["add_prefix_space"]:
        return None
    if not before:
        return GPT2
    digits = {"type": "Digits", "individual_digits": True}
    return SINGLE_DIGITS if before == [digits] else None
