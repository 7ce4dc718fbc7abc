"""N-grams that many rows of a source share: those of a preamble, a schema or a list of tools.

Counted in a sample, so that the time does not grow with the rows. The sample is that of the least
digests: a new row changes at most one row of it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tasks.core.decontamination.ngrams import Hashes

SAMPLE_ROWS = 2_048  # of each source
MIN_ROWS = 10  # an n-gram in at most this many sampled rows is not common
MIN_SHARE = 0.01  # nor one of at most this share of them
BUCKET_BITS = 18  # a table that fits into the cache of a core


def common_ngrams(
    sources: NDArray[np.int64],
    digests: NDArray[np.uint64],
    grams: Callable[[NDArray[np.int64]], Hashes],
) -> Hashes:
    """Sorted n-grams that are common in any source.

    Args:
        sources: A number for the source of each row.
        digests: A number for each row that depends on its content alone.
        grams: Distinct n-grams of each of some rows, one row after another.
    """
    found = [np.empty(0, dtype=np.uint64)]
    for source in range(int(sources.max(initial=-1)) + 1):
        rows = np.flatnonzero(sources == source)
        if len(rows) > SAMPLE_ROWS:
            rows = rows[np.argpartition(digests[rows], SAMPLE_ROWS)[:SAMPLE_ROWS]]
        if len(rows) <= MIN_ROWS:
            continue
        least = max(MIN_ROWS, MIN_SHARE * len(rows))
        values, counts = np.unique(_often(grams(rows), least), return_counts=True)
        found.append(values[counts > least])
    return np.unique(np.concatenate(found))


def _often(grams: Hashes, least: float) -> Hashes:
    """All values that occur more than `least` times, and few others: sorting only these is several
    times as fast."""
    buckets = (grams >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)
    return grams[np.bincount(buckets, minlength=1)[buckets] > least]
