"""Endings: the tokens that end an answer, separated from its content.

An answer in the training data ends with the template's end marker, EOS or another control token.
Learning to write them lowers the loss without any better answer, so they are measured separately.
They are found in the data: in each trained span of a row, from its last token backwards.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tasks.core.models.packed_dataset import IGNORED, Window

_TOKENS_PER_CHARACTER = 4  # a byte-level tokenizer splits a character into at most four


class Endings:
    """Finds the tokens of endings in windows of one tokenizer."""

    def __init__(
        self,
        control: Collection[int],
        ends: Sequence[str],
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        """What an ending may consist of.

        Args:
            control: Ids of control tokens: EOS and those that end a turn of a chat.
            ends: Texts after an answer, such as the end marker with the empty line before it.
            decode: Token ids -> their text.
        """
        self._control = frozenset(control)
        self._ends = tuple(dict.fromkeys(e for end in ends for e in (end, end.strip()) if e))
        self._decode = decode

    def mask(self, window: Window) -> NDArray[np.bool_]:
        """bool[n]: the labelled tokens of a window that belong to an ending.

        A token that holds both content and a part of the ending counts as ending, as whether the
        answer ends there decides about it.
        """
        found = np.zeros(len(window.labels), dtype=bool)
        for start, end in _spans(window):
            length = self.length(window.input_ids[start:end].tolist())
            found[end - length : end] = True
        return found

    def length(self, ids: Sequence[int]) -> int:
        """How many of a span's last tokens belong to its ending."""
        cut = at = len(ids)
        while at and (ids[at - 1] in self._control or not self._decode(ids[at - 1 : at]).strip()):
            at -= 1
            if ids[at] in self._control:
                cut = at  # white space counts only after a control token, as in chat templates
        for end in self._ends:
            for size in range(1, min(cut, _TOKENS_PER_CHARACTER * len(end)) + 1):
                if self._decode(ids[cut - size : cut]).endswith(end):
                    return len(ids) - cut + size
        return len(ids) - cut


def _spans(window: Window) -> Iterator[tuple[int, int]]:
    """Start and end of each run of labelled tokens within a sample."""
    for first, last in pairwise(window.cu_seqlens.tolist()):
        trained = np.concatenate([[False], window.labels[first:last] != IGNORED, [False]])
        edges = np.flatnonzero(trained[1:] != trained[:-1]) + first
        yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
