"""Hashes of words and word n-grams, for a whole batch of texts at a time.

A word is a run of letters, digits and underscores, in lower case. Each Chinese, Japanese or Korean
character is a word of its own, because those texts have no spaces. All bytes of a batch are hashed
together as arrays: a word's hash is the difference of two prefix sums of a polynomial modulo 2**64,
so there is no Python loop over words. Hashes are the same on every machine and in every batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]

BASE = 0x9E3779B97F4A7C15  # 2**64 / golden ratio; odd, so that it has an inverse modulo 2**64
LEAST_POWERS = 1 << 20  # most batches are shorter, so one table is built and reused
STEP = np.uint64(0xD1342543DE82EF95)  # odd multiplier of the rolling hash of an n-gram
_BYTES = np.arange(256)
_IS_UPPER = (ord("A") <= _BYTES) & (ord("Z") >= _BYTES)
_VALUE: Hashes = (np.where(_IS_UPPER, _BYTES + 32, _BYTES) + 1).astype(np.uint64)
_IS_WORD = np.array([chr(b).isalnum() or b == ord("_") for b in range(128)] + [True] * 128)
_BEGINS = (_BYTES >= 0xE3) & (_BYTES <= 0xED)  # first byte of U+3000 to U+DFFF in UTF-8


@dataclass(frozen=True)
class Words:
    """Hashes of all words of a batch; row i has those from starts[i] to starts[i + 1]."""

    hashes: Hashes
    starts: Counts


def hash_words(texts: Sequence[str]) -> Words:
    """Hashes of the words of each text."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    data = np.frombuffer(b"\n".join([*encoded, b""]), dtype=np.uint8)
    ends = np.cumsum([len(text) + 1 for text in encoded], dtype=np.int64)
    is_word = _IS_WORD[data]
    before = np.empty_like(is_word)
    before[:1] = False
    before[1:] = is_word[:-1]
    begins = is_word & (~before | _BEGINS[data])
    first = np.flatnonzero(begins)
    # a word ends where the next one begins, or at the first byte that is part of no word
    last = np.flatnonzero(before & (~is_word | begins))
    powers, inverses = _powers(max(LEAST_POWERS, 1 << len(data).bit_length()))
    # sum of value * BASE**position; times BASE**-first, a word's hash does not depend on its place
    sums = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum(_VALUE[data] * powers[: len(data)], out=sums[1:])
    hashes = mix((sums[last] - sums[first]) * inverses[first])
    starts = np.concatenate([[0], np.searchsorted(first, ends)]).astype(np.int64)
    return Words(hashes, starts)


@lru_cache(maxsize=4)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Powers of `BASE` and of its inverse modulo 2**64."""
    powers = np.full(count, BASE, dtype=np.uint64)
    inverses = np.full(count, pow(BASE, -1, 2**64), dtype=np.uint64)
    powers[0] = inverses[0] = 1
    return np.multiply.accumulate(powers), np.multiply.accumulate(inverses)


def mix(values: Hashes) -> Hashes:
    """Distribute the bits of each value over the whole value (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def ngrams(words: Words, size: int) -> Words:
    """Hashes of the n-grams of each row, in order; a row of fewer than `size` words has none."""
    total = len(words.hashes)
    counts = np.maximum(np.diff(words.starts) - size + 1, 0)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    if not starts[-1]:
        return Words(np.empty(0, dtype=np.uint64), starts)
    rolled = words.hashes[: total - size + 1].copy()
    for offset in range(1, size):
        rolled *= STEP
        rolled += words.hashes[offset : total - size + 1 + offset]
    # drop the n-grams that cross the end of a row
    place = np.arange(starts[-1]) + np.repeat(words.starts[:-1] - starts[:-1], counts)
    return Words(mix(rolled[place]), starts)


def ngram_sets(words: Words, size: int) -> list[Hashes]:
    """The distinct n-grams of each row, sorted; a row of fewer words counts as one n-gram, a row
    without words has none."""
    grams = ngrams(words, size)
    sets: list[Hashes] = []
    for row in range(len(words.starts) - 1):
        found = grams.hashes[grams.starts[row] : grams.starts[row + 1]]
        if not len(found):
            own = words.hashes[words.starts[row] : words.starts[row + 1]]
            sets.append(_joined(own))
            continue
        ordered = np.sort(found)
        is_new = np.empty(len(ordered), dtype=bool)
        is_new[0] = True
        np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
        sets.append(ordered[is_new])
    return sets


def _joined(hashes: Hashes) -> Hashes:
    """All words as one n-gram."""
    if not len(hashes):
        return hashes
    total = hashes[:1].copy()
    for value in hashes[1:]:
        total *= STEP
        total += value
    return mix(total)


def jaccard(one: Hashes, other: Hashes) -> float:
    """Jaccard similarity of two sorted sets; 0 where both are empty."""
    if len(one) > len(other):
        one, other = other, one
    if not len(one):
        return 0.0
    places = np.searchsorted(other, one)
    places[places == len(other)] = 0
    shared = int(np.count_nonzero(other[places] == one))
    return shared / (len(one) + len(other) - shared)
