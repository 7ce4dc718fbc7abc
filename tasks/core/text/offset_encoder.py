"""Encoding of a row as one text: its parts share tokens as they would in the tokenizer's own run.

SentencePiece tokenizers put a space before a text, or before what follows a control token, so the
ids of two texts are not those of both as one. A row is therefore encoded whole, and which of its
tokens are trained follows from their offsets in the text. Control tokens are written into the text
as added tokens of a copy of the tokenizer: a NUL byte, the id, a NUL byte. So they split the text
as they do in the tokenizer, and their names in a row's data stay ordinary text.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

from tasks.core.text.special_tokens import Pieces

_SPACE = "▁"  # stands for a space in SentencePiece vocabularies


@dataclass(frozen=True)
class Tokens:
    """Token ids of a row.

    Attributes:
        ids: The ids.
        trained: bool[n], which of them are trained.
        exact: Whether they decode to the text.
    """

    ids: list[int]
    trained: NDArray[np.bool_]
    exact: bool


@dataclass
class _Text:
    """The text of a row, with its control tokens written as added tokens."""

    text: str = ""
    trained: list[tuple[int, int]] = field(default_factory=list)
    controls: list[tuple[int, int, int, bool]] = field(default_factory=list)


class OffsetEncoder:
    """Encodes rows of parts with one tokenizer.

    Args:
        tokenizer: A fast tokenizer of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        spec = json.loads(tokenizer.backend_tokenizer.to_str())
        # a byte-level post-processor would trim spaces off the offsets
        spec |= {"post_processor": None, "truncation": None, "padding": None}
        self._backend = Tokenizer.from_str(json.dumps(spec))
        self._backend.encode_special_tokens = True
        self._flags = dict(tokenizer.added_tokens_decoder)
        self._keys: dict[int, int] = {}  # id of a control token -> id of its added token

    def encode(self, rows: Sequence[Pieces]) -> list[Tokens]:
        """Token ids of each row, without anything that is put before or after."""
        texts = [self._text(pieces) for pieces in rows]
        encodings = self._backend.encode_batch([t.text for t in texts], add_special_tokens=False)
        keys = {key: number for number, key in self._keys.items()}
        found, sections = [], []
        for text, encoding in zip(texts, encodings, strict=True):
            ids = encoding.ids
            places = [at for at, number in enumerate(ids) if number in keys]
            sections.append(list(self._sections(text, ids, places)))
            trained = _trained(text, np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2))
            for at, (_, _, _, is_trained) in zip(places, text.controls, strict=True):
                trained[at] = is_trained
            found.append(([keys.get(number, number) for number in ids], trained))
        exact = iter(self._exact([section for row in sections for section in row]))
        return [
            Tokens(ids, trained, all(list(islice(exact, len(own)))))
            for (ids, trained), own in zip(found, sections, strict=True)
        ]

    def _text(self, pieces: Pieces) -> _Text:
        made = _Text()
        parts: list[str] = []
        at = 0
        for part, trained in pieces:
            text = part if isinstance(part, str) else self._written(part)
            parts.append(text)
            if not isinstance(part, str):
                made.controls.append((part, at, at + len(text), trained))
            elif trained:
                made.trained.append((at, at + len(text)))
            at += len(text)
        made.text = "".join(parts)
        return made

    def _written(self, number: int) -> str:
        """How a control token is written into a text."""
        text = f"\0{number}\0"
        if number not in self._keys:
            own = self._flags.get(number)
            flags = {n: bool(own and getattr(own, n)) for n in ("lstrip", "rstrip", "single_word")}
            self._backend.add_tokens([AddedToken(text, normalized=False, special=False, **flags)])
            self._keys[number] = int(self._backend.token_to_id(text) or 0)
        return text

    def _sections(
        self, text: _Text, ids: list[int], places: list[int]
    ) -> list[tuple[str, list[int]]]:
        """(text, ids) between control tokens."""
        found = []
        start, first, strips = 0, 0, False
        ends = [(begin, end, self._flags.get(n)) for n, begin, end, _ in text.controls]
        for (begin, end, flags), at in zip(
            [*ends, (len(text.text), 0, None)], [*places, len(ids)], strict=True
        ):
            part = text.text[start:begin]
            part = part.lstrip() if strips else part
            part = part.rstrip() if flags and flags.lstrip else part
            if part or ids[first:at]:
                found.append((part, ids[first:at]))
            start, first, strips = end, at + 1, bool(flags and flags.rstrip)
        return found

    def _exact(self, sections: Sequence[tuple[str, list[int]]]) -> list[bool]:
        """Whether the ids of each section decode to its text, or to its Unicode normal form."""
        decoded = self._backend.decode_batch([ids for _, ids in sections], False)
        return [
            text == back or self._is_normalized(text, back)
            for (text, _), back in zip(sections, decoded, strict=True)
        ]

    def _is_normalized(self, text: str, back: str) -> bool:
        # decoders of SentencePiece drop the space that was put first, or one of the text
        if text in (back.removeprefix(" "), f" {back}"):
            return True
        normalizer = self._backend.normalizer
        if normalizer is None or _SPACE in text:
            return False
        whole = str(normalizer.normalize_str(text)).replace(_SPACE, " ")
        return whole in (back, f" {back}")


def _trained(text: _Text, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each token holds a character that is trained."""
    marks = np.zeros(len(text.text) + 1, dtype=np.int64)
    for start, end in text.trained:
        marks[start + 1 : end + 1] = 1
    sums = np.cumsum(marks)
    starts = np.minimum(offsets[:, 0], len(text.text))
    # a token without characters counts with the character after it
    ends = np.minimum(np.maximum(offsets[:, 1], starts + 1), len(text.text))
    return np.asarray(sums[ends] > sums[starts])
