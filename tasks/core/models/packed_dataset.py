"""Packed dataset: tokenized samples and their packing plan, read one window at a time.

In: a folder `tokenize.<split>` with rows.parquet (`TOKENS`, or `SPANNED_TOKENS`, of
`tasks.core.rows.row_schema`) and windows.parquet (`WINDOWS`). Out: arrays for one window. Rows
are stored in the order of the windows, so a pass in order decodes each row group once; at most
`_CACHED_GROUPS` row groups are in memory, whatever the size of the data.

Samples of a window are isolated from each other: positions restart, `cu_seqlens` holds the start of
each, and a sample's first token has no label, as the token before it belongs to another sample.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.errors import PipelineError

ROWS_FILE = "rows.parquet"
WINDOWS_FILE = "windows.parquet"
IGNORED = -100  # the label that the losses of PyTorch and transformers skip
_CACHED_GROUPS = 8

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Concatenated samples; n tokens, k samples.

    Attributes:
        input_ids: int64[n].
        labels: int64[n], unshifted (label i is token i), `IGNORED` where no loss is taken.
        position_ids: int64[n], starting at 0 in every sample.
        cu_seqlens: int32[k + 1], the start of each sample, then n.
        row_ids: k ids, in order.
    """

    input_ids: Ints
    labels: Ints
    position_ids: Ints
    cu_seqlens: NDArray[np.int32]
    row_ids: tuple[str, ...]

    @property
    def trained_tokens(self) -> int:
        """Tokens with a label."""
        return int((self.labels != IGNORED).sum())


@dataclass(frozen=True)
class _RowGroup:
    """One decoded row group: the tokens of all its rows in one array, split by offsets.

    Attributes:
        values: The tokens.
        offsets: The start of each row, and the end.
        trained: Which tokens are trained.
        row_ids: Ids of the rows.
    """

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]
    trained: NDArray[np.bool_]
    row_ids: list[str]


class Windows:
    """The windows of one split; open with `Windows.open`. Not safe for several threads."""

    def __init__(self, folder: Path, rows: pq.ParquetFile, plan: Any) -> None:
        self.folder = folder
        self._rows = rows
        self._plan = plan.column("rows").combine_chunks()
        self.tokens: Ints = plan.column("tokens").to_numpy().astype(np.int64)
        sizes = [rows.metadata.row_group(i).num_rows for i in range(rows.num_row_groups)]
        self._starts: list[int] = [0, *accumulate(sizes)]
        self._groups: OrderedDict[int, _RowGroup] = OrderedDict()

    @classmethod
    def open(cls, folder: Path) -> "Windows":
        """Open a folder that holds rows.parquet and windows.parquet.

        Raises:
            PipelineError: One of the two files is missing.
        """
        folder = Path(folder)
        for name in (ROWS_FILE, WINDOWS_FILE):
            if not (folder / name).is_file():
                raise PipelineError(
                    f"{folder} is not tokenized data: {name} is missing",
                    "Run the stage tokenize again.",
                )
        rows = pq.ParquetFile(folder / ROWS_FILE, memory_map=True)
        return cls(folder, rows, pq.read_table(folder / WINDOWS_FILE))

    def __reduce__(self) -> tuple[Any, ...]:
        return Windows.open, (self.folder,)  # a data loader's worker process opens its own file

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def row_count(self) -> int:
        """Samples in the split."""
        return self._starts[-1]

    def window(self, index: int) -> Window:
        """The window at `index`, counted from 0 in training order."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return self.assemble(self._plan[index].values.to_numpy())

    def several(self, first: int, last: int) -> tuple[Window, Ints]:
        """The samples of windows `first` to `last` (exclusive) as one, and the samples in each."""
        plan = self._plan[first:last]
        return self.assemble(plan.flatten().to_numpy()), plan.value_lengths().to_numpy()

    def __iter__(self) -> Iterator[Window]:
        return (self.window(index) for index in range(len(self)))

    def rows(self) -> Iterator[Window]:
        """Every sample as its own window."""
        return (self.assemble([index]) for index in range(self.row_count))

    def assemble(self, rows: Sequence[int] | Ints) -> Window:
        """One window from samples by their index."""
        parts, marks, sizes, row_ids = [], [], [], []
        for number, first, last in self._runs(np.asarray(rows)):
            group = self._group(number)
            offsets = group.offsets[first : last + 1]
            parts.append(group.values[offsets[0] : offsets[-1]])
            marks.append(group.trained[offsets[0] : offsets[-1]])
            sizes.append(np.diff(offsets))
            row_ids += group.row_ids[first:last]
        lengths = np.concatenate(sizes)
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        tokens = np.concatenate(parts).astype(np.int64)
        positions = np.arange(len(tokens)) - np.repeat(ends[:-1].astype(np.int64), lengths)
        # a sample's first token has no label, even without a prompt
        labels = np.where(np.concatenate(marks) & (positions > 0), tokens, IGNORED)
        return Window(tokens, labels, positions, ends, tuple(row_ids))

    def _runs(self, rows: Ints) -> Iterator[tuple[int, int, int]]:
        """(row group, start, stop) in it of consecutive rows."""
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        ends = np.flatnonzero((np.diff(rows) != 1) | (np.diff(numbers) != 0)) + 1
        for start, end in pairwise([0, *ends.tolist(), len(rows)]):
            number = int(numbers[start])
            first = int(rows[start]) - self._starts[number]
            yield number, first, first + end - start

    def _group(self, number: int) -> _RowGroup:
        """Row group `number`, decoded, from an LRU cache."""
        if number in self._groups:
            self._groups.move_to_end(number)
            return self._groups[number]
        table = self._rows.read_row_group(number)
        ids = table.column("input_ids").combine_chunks()
        offsets = ids.offsets.to_numpy().astype(np.int64)
        group = _RowGroup(
            ids.values.to_numpy(),
            offsets,
            _trained(table, offsets),
            table.column("row_id").to_pylist(),
        )
        self._groups[number] = group
        if len(self._groups) > _CACHED_GROUPS:
            self._groups.popitem(last=False)
        return group


def _trained(table: Any, offsets: Ints) -> NDArray[np.bool_]:
    """Whether each token of the rows of a row group is trained, by their spans or prompts."""
    lengths = np.diff(offsets)
    if "spans" not in table.column_names:
        positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return np.asarray(positions >= np.repeat(table.column("prompt_tokens").to_numpy(), lengths))
    spans = table.column("spans").combine_chunks()
    starts = np.repeat(offsets[:-1], spans.value_lengths().to_numpy())
    # a span adds one at its start and takes it away at its end
    edges = (spans.flatten().to_numpy() + starts).reshape(-1, 2)
    steps = np.zeros(offsets[-1] + 1, dtype=np.int8)
    np.add.at(steps, edges[:, 0], 1)
    np.add.at(steps, edges[:, 1], -1)
    return np.cumsum(steps[:-1]) > 0
