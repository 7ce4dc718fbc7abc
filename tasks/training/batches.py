"""The batch sampler: the windows of each optimizer step, a pure function of data, settings, step.

No running random state is used, so a resumed run sees exactly what an uninterrupted one does.
Windows are stored in random order; later epochs shuffle them within and among blocks, which keeps
reading nearly sequential. Rows are stored window by window, and packing puts rows of like length
side by side: steps of rows draw from a permutation of all rows, in every epoch.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import IGNORED, Window, Windows
from tasks.core.models.packing import join_rows, pack_in_order

BLOCK = 256  # samples shuffled together; about one row group of a Parquet file
Ints = NDArray[np.int64]
Step = tuple[int, ...]


def no_training_rows() -> PipelineError:
    """The error of an empty training split."""
    return PipelineError(
        "there are 0 rows to train on",
        "Loosen the filter or tokenize.max_tokens, or add more data.",
    )


def epoch_order(count: int, seed: int, epoch: int, block: int = BLOCK) -> Ints:
    """Order of `count` samples: as stored in epoch 0, shuffled by blocks in later epochs."""
    if epoch == 0:
        return np.arange(count)
    rng = np.random.default_rng([seed, epoch])
    starts = rng.permutation(np.arange(0, count, block))
    blocks = [rng.permutation(np.arange(s, min(s + block, count))) for s in starts]
    return np.concatenate(blocks) if blocks else np.arange(0)


def row_order(count: int, seed: int, epoch: int) -> Ints:
    """Order of `count` rows in an epoch: a random permutation, the first epoch included."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def steps_by_rows(order: Ints, batch_rows: int) -> list[Step]:
    """Cut an order into steps of `batch_rows`; the last step may be smaller."""
    return [tuple(order[i : i + batch_rows].tolist()) for i in range(0, len(order), batch_rows)]


def steps_by_tokens(order: Ints, tokens: Ints, batch_tokens: int) -> list[Step]:
    """Cut an order into steps of about `batch_tokens`.

    A step ends where one more window would move its size away from `batch_tokens`, so that windows
    that are not quite full do not pull in an extra one.
    """
    steps: list[Step] = []
    step: list[int] = []
    total = 0
    for index in order.tolist():
        size = int(tokens[index])
        if step and abs(total + size - batch_tokens) > abs(total - batch_tokens):
            steps.append(tuple(step))
            step, total = [], 0
        step.append(index)
        total += size
    if step:
        steps.append(tuple(step))
    return steps


def count_steps(steps_an_epoch: Sequence[int], max_steps: int | None, epochs: float | None) -> int:
    """Optimizer steps of the whole run, whichever of the two limits comes first.

    Args:
        steps_an_epoch: Steps of epoch 0, 1, ...; the last entry applies to all later epochs.
        max_steps: Limit in steps.
        epochs: Limit in epochs; a part of an epoch is rounded up to whole steps.
    """
    if epochs is None:
        return int(max_steps or 0)
    whole = math.floor(epochs)
    known = [steps_an_epoch[min(e, len(steps_an_epoch) - 1)] for e in range(whole + 1)]
    total = sum(known[:whole]) + math.ceil(known[whole] * (epochs - whole) - 1e-9)
    total = max(1, total)
    return total if max_steps is None else min(total, max_steps)


class Batches:
    """The steps of a run over one split.

    Args:
        windows: The tokenized split.
        batch_rows: Rows per step, used if `batch_tokens` is None.
        batch_tokens: Tokens per step, in whole windows.
        joined_tokens: With `batch_rows`: longest window that rows of a step are joined into.
        seed: Of the order.

    Raises:
        PipelineError: The split is empty.
    """

    def __init__(
        self,
        windows: Windows,
        *,
        batch_rows: int,
        batch_tokens: int | None,
        joined_tokens: int,
        seed: int,
    ) -> None:
        if not len(windows):
            raise no_training_rows()
        self.windows = windows
        self.by_rows = batch_tokens is None
        self._batch = batch_rows if batch_tokens is None else batch_tokens
        self._joined = joined_tokens
        self._seed = seed
        self._plans: dict[int, list[Step]] = {}

    def plan(self, epoch: int) -> list[Step]:
        """Indexes of rows or windows, one tuple per step, for one epoch."""
        if epoch not in self._plans:
            self._plans = {epoch: self._make_plan(epoch)}
        return self._plans[epoch]

    @property
    def max_tokens(self) -> int:
        """Upper bound of the tokens of a window that is run."""
        longest = int(self.windows.tokens.max())
        if not self.by_rows:
            return longest
        return max(longest, min(self._joined, longest * self._batch))

    def longest(self) -> Window:
        """A window of about `max_tokens`, made of real samples, for the memory probe."""
        window = self.windows.window(int(self.windows.tokens.argmax()))
        if not self.by_rows:
            return window
        return next(join_rows([window] * self._batch, self.max_tokens))

    def _make_plan(self, epoch: int) -> list[Step]:
        if self.by_rows:
            order = row_order(self.windows.row_count, self._seed, epoch)
            return steps_by_rows(order, self._batch)
        order = epoch_order(len(self.windows), self._seed, epoch)
        return steps_by_tokens(order, self.windows.tokens, self._batch)

    def total_steps(self, max_steps: int | None, epochs: float | None) -> int:
        """Optimizer steps of the whole run."""
        needed = 1 if epochs is None or self.by_rows else math.floor(epochs) + 1
        return count_steps([len(self._make_plan(e)) for e in range(needed)], max_steps, epochs)

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, list[Window]]]:
        """Yield (epoch, windows to run) for the steps from `start` up to `stop`."""
        epoch, first = 0, 0
        while first + len(self.plan(epoch)) <= start:
            first += len(self.plan(epoch))
            epoch += 1
        for step in range(start, stop):
            if step - first >= len(self.plan(epoch)):
                first += len(self.plan(epoch))
                epoch += 1
            yield epoch, self._read(self.plan(epoch)[step - first])

    def _read(self, step: Step) -> list[Window]:
        if not self.by_rows:
            return [self.windows.window(index) for index in step]
        return list(join_rows((self.windows.assemble((row,)) for row in step), self._joined))


def split_window(window: Window, max_tokens: int) -> list[Window]:
    """Cut a window between samples into windows of at most `max_tokens`; a longer sample is alone.

    Samples never attend to each other, so the step's result does not depend on the cuts.
    """
    if len(window.input_ids) <= max_tokens:
        return [window]
    lengths = np.diff(window.cu_seqlens).tolist()
    groups = pack_in_order(range(len(lengths)), lengths.__getitem__, max_tokens)
    return [_samples(window, group[0], group[-1] + 1) for group in groups]


def _samples(window: Window, first: int, stop: int) -> Window:
    ends = window.cu_seqlens[first : stop + 1]
    tokens = slice(int(ends[0]), int(ends[-1]))
    return Window(
        window.input_ids[tokens],
        window.labels[tokens],
        window.position_ids[tokens],
        ends - ends[0],
        window.row_ids[first:stop],
    )


def trained_tokens(windows: Sequence[Window]) -> int:
    """Tokens in the loss of a step."""
    return sum(window.trained_tokens for window in windows)


def trained_rows(windows: Sequence[Window]) -> int:
    """Rows of a step with a token in the loss."""
    found = 0
    for window in windows:
        labels = np.flatnonzero(window.labels != IGNORED)
        found += len(np.unique(np.searchsorted(window.cu_seqlens, labels, "right")))
    return found
