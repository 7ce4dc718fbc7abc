"""MinHash: sets of n-gram hashes -> signatures -> band keys, for finding candidate pairs
(Broder 1997; banding as in Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3).

Plain numpy: at 200 n-grams per row 256 permutations take about 30 microseconds, as much as the Rust
library rensa including the conversion of its results to arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.core.decontamination.ngrams import Hashes, mix

if TYPE_CHECKING:
    from tasks.core.settings.filter import NearDuplicateSettings

CHUNK = 512  # n-grams that are hashed together: 512 x 256 x 4 bytes stay in the processor's cache
NO_KEY = np.uint64(0)  # band key of a row without words; equals no other key


@dataclass(frozen=True)
class MinHash:
    """The settings of the signatures; see `NearDuplicateSettings`."""

    ngram_words: int
    permutations: int
    bands: int
    rows_per_band: int

    @classmethod
    def of(cls, near: "NearDuplicateSettings") -> "MinHash | None":
        """The settings as plain values; None if near duplicates are allowed."""
        values = (near.ngram_words, near.permutations, near.bands, near.rows_per_band)
        return cls(*values) if near.enabled else None


@lru_cache(maxsize=4)
def _hash_functions(permutations: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Odd factors and summands of x -> a * x + b modulo 2**32, the same on every machine."""
    numbers = mix(
        np.arange(1, 2 * permutations + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    )
    drawn = (numbers >> np.uint64(32)).astype(np.uint32)
    return drawn[:permutations] | np.uint32(1), drawn[permutations:]


def signatures(sets: Sequence[Hashes], permutations: int) -> NDArray[np.uint32]:
    """One signature per row; the greatest number everywhere for a row without n-grams."""
    factors, summands = _hash_functions(permutations)
    result = np.full((len(sets), permutations), np.iinfo(np.uint32).max, dtype=np.uint32)
    space = np.empty((CHUNK, permutations), dtype=np.uint32)
    for row, grams in enumerate(sets):
        short = (grams >> np.uint64(32)).astype(np.uint32)
        for start in range(0, len(short), CHUNK):
            chunk = short[start : start + CHUNK]
            hashed = space[: len(chunk)]
            np.multiply(chunk[:, None], factors, out=hashed)
            np.add(hashed, summands, out=hashed)
            np.minimum(result[row], np.minimum.reduce(hashed, axis=0), out=result[row])
    return result


def band_keys(sets: Sequence[Hashes], settings: MinHash) -> Hashes:
    """Keys of shape (rows of the batch, bands): equal where all hashes of a band agree."""
    permutations, bands, rows = settings.permutations, settings.bands, settings.rows_per_band
    signed = signatures(sets, permutations)[:, : bands * rows].astype(np.uint64)
    parts = signed.reshape(len(sets), bands, rows)
    weights = mix(np.arange(1, rows + 1, dtype=np.uint64)) | np.uint64(1)
    keys = mix((mix(parts + np.uint64(1)) * weights).sum(axis=2, dtype=np.uint64))
    keys = np.maximum(keys, np.uint64(1))  # NO_KEY is reserved
    keys[[not len(grams) for grams in sets]] = NO_KEY
    return keys
