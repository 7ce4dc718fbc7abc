"""Text layers of decontamination.

- substring: a row holds the description, prompt or solution of a problem, whitespace aside;
- ngrams: a row holds a share of the word n-grams of one of these texts. The share is of the
  problem's text, so text around it in the row cannot dilute it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from tasks.core.decontamination.ngrams import Words, ngrams
from tasks.core.decontamination.problem_index import PROBE_WORDS, Hit, ProblemIndex, squeeze


def find_texts(texts: Sequence[str], words: Words, index: ProblemIndex) -> list[list[Hit]]:
    """Problems whose words a row holds: layers "substring" and "ngrams".

    Args:
        texts: All text of each row.
        words: Hashes of the words of `texts`.
        index: Of the problems.

    Returns:
        The hits of each row; of layer "ngrams" only the best one, which may be below the threshold.
    """
    hits: list[list[Hit]] = [[] for _ in texts]
    for row, candidates in _probed(words, index).items():
        squeezed = squeeze(texts[row])
        for problem_id, name, text in candidates:
            if text in squeezed:
                hits[row].append(Hit("substring", problem_id, 1.0, f"its {name}: {text[:60]}"))
                break
    for row, hit in _contained(words, index):
        hits[row].append(hit)
    return hits


def _probed(words: Words, index: ProblemIndex) -> dict[int, list[tuple[str, str, str]]]:
    """Row -> texts whose probe it holds; only these are worth a substring search."""
    probes = ngrams(words, PROBE_WORDS)
    positions = index.probe_filter.positions(probes.hashes)
    found: dict[int, list[tuple[str, str, str]]] = {}
    for row, probe in _distinct(probes, positions):
        found.setdefault(row, []).extend(index.probes[probe])
    return found


def _contained(words: Words, index: ProblemIndex) -> Iterator[tuple[int, Hit]]:
    """For each row with n-grams of a problem the text that it holds the largest share of."""
    grams = ngrams(words, index.limits.ngram_words)
    held: dict[int, Counter[int]] = defaultdict(Counter)
    for row, gram in _distinct(grams, index.gram_filter.positions(grams.hashes)):
        held[row].update(index.grams[gram])
    for row, counts in held.items():
        best = max(counts, key=lambda text: (counts[text] / index.texts[text][2], -text))
        problem_id, name, total = index.texts[best]
        evidence = f"{counts[best]} of {total} {index.limits.ngram_words}-grams of its {name}"
        yield row, Hit("ngrams", problem_id, counts[best] / total, evidence)


def _distinct(
    grams: Words, positions: "np.ndarray[tuple[int], np.dtype[np.int64]]"
) -> dict[tuple[int, int], None]:
    """(row, hash) at the positions, each pair once, in order of appearance."""
    rows = np.searchsorted(grams.starts, positions, side="right") - 1
    return dict.fromkeys(zip(rows.tolist(), grams.hashes[positions].tolist(), strict=True))
