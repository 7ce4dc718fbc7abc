"""Which rows hold a task of a benchmark: three layers that need only the texts.

- substring: the description, prompt or solution of a task stands in the row, whitespace aside;
- ngrams: the row holds at least half of the word n-grams of one of these texts. The share is of the
  task's text, so nothing that stands around it in the row can thin it out;
- syntax: a function of the row has the shape of the task's own (see `shapes`).

The fourth, running a row's function against the task's tests, is in `execution`.
"""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from tasks.core.decontamination.ngrams import (
    Hashes,
    Words,
    hash_words,
    ngrams,
)
from tasks.core.decontamination.problems import TaskSet, parse
from tasks.core.decontamination.syntax_match import functions_of, outline, shape

LAYERS = ("substring", "ngrams", "syntax", "execution")
PROBE_WORDS = 5  # a text is searched for in a row that holds this many of its words in a row
FENCE = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
MAX_BLOCKS = 8  # fenced pieces of code that are read in one row
_BITS = 20


@dataclass(frozen=True)
class Limits:
    """The settings that the layers need."""

    min_substring_characters: int
    ngram_words: int
    max_containment: float
    syntax_trees: bool


@dataclass(frozen=True)
class Hit:
    """A task in a row.

    Attributes:
        layer: One of `LAYERS`.
        task_id: Which task.
        value: Share of the task's n-grams for "ngrams", else 1.
        evidence: What was found.
    """

    layer: str
    task_id: str
    value: float
    evidence: str


@dataclass
class Index:
    """Tasks, arranged for looking up a batch of rows."""

    probes: dict[int, list[tuple[str, str, str]]] = field(default_factory=dict)
    grams: dict[int, list[int]] = field(default_factory=dict)
    texts: list[tuple[str, str, int]] = field(default_factory=list)  # task, name, n-grams
    shapes: dict[bytes, str] = field(default_factory=dict)
    outlines: set[tuple[object, ...]] = field(default_factory=set)
    limits: Limits = field(default=Limits(40, 10, 0.5, True))
    probe_filter: "_Filter" = field(init=False)
    gram_filter: "_Filter" = field(init=False)


class _Filter:
    """Tells of most hashes that they are none of the known ones."""

    def __init__(self, known: Iterable[int]) -> None:
        self._known = np.fromiter(known, dtype=np.uint64)
        self._bits = np.zeros(1 << _BITS, dtype=bool)
        self._bits[self._known >> np.uint64(64 - _BITS)] = True

    def places(self, hashes: Hashes) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """Where known hashes stand."""
        likely = np.flatnonzero(self._bits[hashes >> np.uint64(64 - _BITS)])
        return likely[np.isin(hashes[likely], self._known)]


@lru_cache(maxsize=1)  # each process looks up many batches
def build_index(tasks: TaskSet, limits: Limits) -> Index:
    """Arrange tasks for `find_texts` and `find_shape`."""
    index = Index(limits=limits)
    for task in tasks.tasks():
        for name, text in task.texts:
            words = hash_words([text])
            probes = ngrams(words, PROBE_WORDS).hashes.tolist()
            squeezed = squeeze(text)
            if probes and len(squeezed) >= limits.min_substring_characters:
                # a row that holds the text holds each of its n-grams; the middle one will do
                found = index.probes.setdefault(probes[len(probes) // 2], [])
                found.append((task.task_id, name, squeezed))
            grams = set(ngrams(words, limits.ngram_words).hashes.tolist())
            if grams:
                for gram in grams:
                    index.grams.setdefault(gram, []).append(len(index.texts))
                index.texts.append((task.task_id, name, len(grams)))
        for program in task.programs if limits.syntax_trees else ():
            tree = parse(program)
            for function in functions_of(tree) if tree else ():
                if (known := shape(function)) is not None:
                    index.shapes.setdefault(known, task.task_id)
                    index.outlines.add(outline(function))
    index.probe_filter = _Filter(index.probes)
    index.gram_filter = _Filter(index.grams)
    return index


def squeeze(text: str) -> str:
    """A text without whitespace, in lower case."""
    return "".join(text.split()).lower()


def find_texts(texts: Sequence[str], words: Words, index: Index) -> list[list[Hit]]:
    """Tasks whose words stand in each row: layers "substring" and "ngrams".

    Args:
        texts: All text of each row.
        words: Hashes of the words of `texts`.
        index: Of the tasks.

    Returns:
        For each row its hits; of layer "ngrams" only the best one, which may lie below the
        threshold.
    """
    hits: list[list[Hit]] = [[] for _ in texts]
    for row, candidates in _probed(words, index).items():
        squeezed = squeeze(texts[row])
        for task_id, name, text in candidates:
            if text in squeezed:
                hits[row].append(Hit("substring", task_id, 1.0, f"its {name}: {text[:60]}"))
                break
    for row, hit in _contained(words, index):
        hits[row].append(hit)
    return hits


def _probed(words: Words, index: Index) -> dict[int, list[tuple[str, str, str]]]:
    probes = ngrams(words, PROBE_WORDS)
    places = index.probe_filter.places(probes.hashes)
    rows = np.searchsorted(probes.starts, places, side="right") - 1
    found: dict[int, list[tuple[str, str, str]]] = {}
    for row, probe in dict.fromkeys(
        zip(rows.tolist(), probes.hashes[places].tolist(), strict=True)
    ):
        found.setdefault(row, []).extend(index.probes[probe])
    return found


def _contained(words: Words, index: Index) -> Iterator[tuple[int, Hit]]:
    """For each row with n-grams of a task the text that it holds most of."""
    grams = ngrams(words, index.limits.ngram_words)
    places = index.gram_filter.places(grams.hashes)
    rows = np.searchsorted(grams.starts, places, side="right") - 1
    held: dict[int, Counter[int]] = defaultdict(Counter)
    for row, gram in dict.fromkeys(zip(rows.tolist(), grams.hashes[places].tolist(), strict=True)):
        held[row].update(index.grams[gram])
    for row, counts in held.items():
        best = max(counts, key=lambda text: (counts[text] / index.texts[text][2], -text))
        task_id, name, total = index.texts[best]
        evidence = f"{counts[best]} of {total} {index.limits.ngram_words}-grams of its {name}"
        yield row, Hit("ngrams", task_id, counts[best] / total, evidence)


def find_shape(texts: Sequence[str], tree: ast.Module | None, index: Index) -> list[Hit]:
    """The first task whose function a row has: layer "syntax".

    Args:
        texts: Instruction, input and output of the row.
        tree: The output as Python; None if it is none.
        index: Of the tasks.
    """
    for found in _trees(texts, tree):
        for function in functions_of(found):
            if outline(function) in index.outlines:
                own = shape(function)
                task_id = None if own is None else index.shapes.get(own)
                if task_id is not None:
                    evidence = f"function {function.name}, identifiers renamed"
                    return [Hit("syntax", task_id, 1.0, evidence)]
    return []


def _trees(texts: Sequence[str], tree: ast.Module | None) -> Iterator[ast.Module]:
    """The output as Python, else the fenced pieces of code of the row."""
    if tree is not None:
        yield tree
    for text in texts:
        if "```" in text:
            for match in list(FENCE.finditer(text))[:MAX_BLOCKS]:
                if (fenced := parse(match[1])) is not None:
                    yield fenced
    given = texts[1]
    if "def " in given and (asked := parse(given)) is not None:
        yield asked
