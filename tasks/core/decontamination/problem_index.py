"""Problems arranged for lookup by hash, the limits of a match, and the match itself.

Two filters of 2**20 bits answer most lookups: nearly all n-grams of a row belong to no problem.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.decontamination.ngrams import Counts, Hashes, hash_words, ngrams
from tasks.core.decontamination.problems import PackedProblems
from tasks.core.languages.python.source import parse_python

if TYPE_CHECKING:
    from tasks.core.settings.filter import DecontaminationSettings

LAYERS = ("substring", "ngrams", "syntax", "execution")
PROBE_WORDS = 5  # a text is compared with a row that shares this many consecutive words
_BITS = 20


@dataclass(frozen=True)
class MatchLimits:
    """The settings of the layers that read text; see `DecontaminationSettings`."""

    min_substring_characters: int
    ngram_words: int
    max_containment: float
    syntax_trees: bool

    @classmethod
    def of(cls, settings: "DecontaminationSettings") -> "MatchLimits":
        """The limits as plain values, so that worker processes do not import the settings."""
        return cls(
            settings.min_substring_characters,
            settings.ngram_words,
            settings.max_containment,
            settings.syntax_trees,
        )


@dataclass(frozen=True)
class Hit:
    """A problem found in a row.

    Attributes:
        layer: One of `LAYERS`.
        problem_id: Which problem.
        value: Share of the text's n-grams for "ngrams", else 1.
        evidence: What was found.
    """

    layer: str
    problem_id: str
    value: float
    evidence: str

    def threshold(self, max_containment: float) -> float:
        """The value from which a hit of this layer counts."""
        return max_containment if self.layer == "ngrams" else 0.0

    def counts(self, max_containment: float) -> bool:
        """Whether the hit contaminates the row."""
        return self.value >= self.threshold(max_containment)


class _HashFilter:
    """A bitmap over the leading bits of known hashes, then an exact test of what passes it."""

    def __init__(self, known: Iterable[int]) -> None:
        self._known = np.fromiter(known, dtype=np.uint64)
        self._bits = np.zeros(1 << _BITS, dtype=bool)
        self._bits[self._known >> np.uint64(64 - _BITS)] = True

    def positions(self, hashes: Hashes) -> Counts:
        """Positions of known hashes."""
        likely = np.flatnonzero(self._bits[hashes >> np.uint64(64 - _BITS)])
        return likely[np.isin(hashes[likely], self._known)]


@dataclass
class ProblemIndex:
    """Problems arranged for looking up a batch of rows.

    Attributes:
        limits: Limits of the layers.
        probes: Hash of one n-gram of each text -> (problem, name, squeezed text).
        grams: Hash of an n-gram -> positions in `texts`.
        texts: (problem, name, number of distinct n-grams).
        shapes: Digest of a function -> problem.
        outlines: Outlines of the same functions.
    """

    limits: MatchLimits
    probes: dict[int, list[tuple[str, str, str]]] = field(default_factory=dict)
    grams: dict[int, list[int]] = field(default_factory=dict)
    texts: list[tuple[str, str, int]] = field(default_factory=list)
    shapes: dict[bytes, str] = field(default_factory=dict)
    outlines: set[object] = field(default_factory=set)
    probe_filter: _HashFilter = field(init=False)
    gram_filter: _HashFilter = field(init=False)

    def add_text(self, problem_id: str, name: str, text: str) -> None:
        """Index one text of a problem for the layers "substring" and "ngrams"."""
        words = hash_words([text])
        probes = ngrams(words, PROBE_WORDS).hashes.tolist()
        squeezed = squeeze(text)
        if probes and len(squeezed) >= self.limits.min_substring_characters:
            # a row that holds the text holds each of its n-grams, so one of them suffices
            found = self.probes.setdefault(probes[len(probes) // 2], [])
            found.append((problem_id, name, squeezed))
        grams = set(ngrams(words, self.limits.ngram_words).hashes.tolist())
        if grams:
            for gram in grams:
                self.grams.setdefault(gram, []).append(len(self.texts))
            self.texts.append((problem_id, name, len(grams)))

    def add_program(self, problem_id: str, program: str) -> None:
        """Index the distinctive functions of a program for the layer "syntax"; the first problem
        wins."""
        source, _ = parse_python(program)
        for function in source.functions_and_methods() if source else ():
            if function.is_distinctive and (shape := function.shape()) is not None:
                self.shapes.setdefault(shape, problem_id)
                self.outlines.add(function.outline())


@lru_cache(maxsize=1)  # each process looks up many batches
def build_index(problems: PackedProblems, limits: MatchLimits) -> ProblemIndex:
    """Arrange problems for `find_texts` and `find_shape`."""
    index = ProblemIndex(limits)
    for problem in problems.unpack():
        for name, text in problem.texts:
            index.add_text(problem.problem_id, name, text)
        for program in problem.programs if limits.syntax_trees else ():
            index.add_program(problem.problem_id, program)
    index.probe_filter = _HashFilter(index.probes)
    index.gram_filter = _HashFilter(index.grams)
    return index


def squeeze(text: str) -> str:
    """A text without whitespace, in lower case."""
    return "".join(text.split()).lower()
