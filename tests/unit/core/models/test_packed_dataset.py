import pickle
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import IGNORED, Windows
from tasks.core.rows import row_schema

SAMPLES = [("a", [5, 6, 7, 0], 2), ("b", [8, 9, 0], 1), ("c", [0, 0, 3, 0], 0)]


def write(folder: Path, plan: list[list[int]], row_group_size: int = 2) -> Path:
    ids, tokens, prompts = zip(*SAMPLES, strict=True)
    rows = pa.table([ids, tokens, prompts], schema=row_schema.TOKENS)
    pq.write_table(rows, folder / "rows.parquet", row_group_size=row_group_size)
    sizes = [sum(len(tokens[r]) for r in window) for window in plan]
    windows = pa.table([range(len(plan)), plan, sizes], schema=row_schema.WINDOWS)
    pq.write_table(windows, folder / "windows.parquet")
    return folder


@pytest.fixture
def windows(tmp_path: Path) -> Windows:
    return Windows.open(write(tmp_path, [[0, 1], [2]]))


def test_a_window_lays_its_samples_one_after_another(windows: Windows) -> None:
    window = windows.window(0)
    assert window.input_ids.tolist() == [5, 6, 7, 0, 8, 9, 0]
    assert window.row_ids == ("a", "b")
    assert window.cu_seqlens.tolist() == [0, 4, 7]
    assert window.input_ids.dtype == np.int64
    assert window.cu_seqlens.dtype == np.int32


def test_positions_restart_at_every_sample(windows: Windows) -> None:
    assert windows.window(0).position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2]


def test_labels_mask_the_prompt_by_length_and_not_by_token_id(windows: Windows) -> None:
    assert windows.window(0).labels.tolist() == [IGNORED, IGNORED, 7, 0, IGNORED, 9, 0]
    assert windows.window(1).labels.tolist() == [IGNORED, 0, 3, 0]


def test_the_first_token_of_a_sample_carries_no_label_even_without_a_prompt(tmp_path: Path) -> None:
    window = Windows.open(write(tmp_path, [[1, 2], [0]])).window(0)
    assert window.labels[window.cu_seqlens[:-1]].tolist() == [IGNORED, IGNORED]
    assert window.trained_tokens == 5


def test_rows_yields_every_sample_alone_whatever_the_row_groups(tmp_path: Path) -> None:
    rows = list(Windows.open(write(tmp_path, [[0, 1, 2]], row_group_size=1)).rows())
    assert [row.input_ids.tolist() for row in rows] == [tokens for _, tokens, _ in SAMPLES]


@pytest.mark.parametrize("rows", [*permutations(range(3)), (1, 1), (0, 2)])
@pytest.mark.parametrize("row_group_size", [1, 2, 3])
def test_samples_come_in_the_order_asked_for_wherever_they_lie(
    tmp_path: Path, rows: tuple[int, ...], row_group_size: int
) -> None:
    window = Windows.open(write(tmp_path, [[0]], row_group_size)).assemble(rows)
    assert window.row_ids == tuple(SAMPLES[row][0] for row in rows)
    assert window.input_ids.tolist() == [id for row in rows for id in SAMPLES[row][1]]
    first = (SAMPLES[row][2] or 1 for row in rows)
    lengths = (len(SAMPLES[row][1]) for row in rows)
    labelled = [at >= start for start, n in zip(first, lengths, strict=True) for at in range(n)]
    assert (window.labels != IGNORED).tolist() == labelled


def test_several_windows_are_their_samples_and_how_many_each_holds(windows: Windows) -> None:
    samples, sizes = windows.several(0, 5)
    assert (samples.row_ids, sizes.tolist()) == (("a", "b", "c"), [2, 1])
    assert windows.several(1, 2)[0].row_ids == ("c",)


def test_a_window_beyond_the_last_is_an_error_and_not_the_last(windows: Windows) -> None:
    assert len(windows) == 2
    for index in (2, -1):
        with pytest.raises(IndexError):
            windows.window(index)


def test_a_worker_process_can_be_handed_the_windows(windows: Windows) -> None:
    again = pickle.loads(pickle.dumps(windows))
    assert again.window(1).row_ids == ("c",)


def test_a_folder_without_a_plan_names_the_missing_file(tmp_path: Path) -> None:
    (write(tmp_path, [[0]]) / "windows.parquet").unlink()
    with pytest.raises(PipelineError, match=r"windows\.parquet is missing"):
        Windows.open(tmp_path)


def test_labels_of_several_spans_are_those_of_the_spans_wherever_the_sample_lies(
    tmp_path: Path,
) -> None:
    write(tmp_path, [[0, 2, 1]])
    ids, tokens, prompts = zip(*SAMPLES, strict=True)
    spans = [[1, 2, 3, 4], [], [0, 2]]
    rows = pa.table([ids, tokens, prompts, spans], schema=row_schema.SPANNED_TOKENS)
    pq.write_table(rows, tmp_path / "rows.parquet", row_group_size=2)
    window = Windows.open(tmp_path).window(0)
    no = IGNORED
    assert window.labels.tolist() == [no, 6, no, 0, no, 0, no, no, no, no, no]
