import numpy as np
import pytest

from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import IGNORED, Window
from tasks.tokenization.audit import (
    Audit,
    check,
    check_exact,
    count,
)

EOS = 0


def counted(labels: list[int], ids: list[int], starts: list[int], room: int = 8) -> Audit:
    found = Audit(windows=1, window_tokens=room)
    window = Window(
        np.array(ids),
        np.array(labels),
        np.arange(len(ids)),
        np.array([*starts, len(ids)], dtype=np.int32),
        tuple("ab"[: len(starts)]),
    )
    count(found, window, np.array([len(starts)]), {EOS})
    return found


def test_good_labels_pass() -> None:
    found = counted([IGNORED, 6, EOS, IGNORED, EOS], [5, 6, EOS, 7, EOS], [0, 3])
    check("train", found)
    assert (found.rows, found.tokens, found.trained_tokens, found.longest_row) == (2, 5, 3, 3)


def test_a_row_with_all_labels_masked_stops_the_stage() -> None:
    found = counted([IGNORED, EOS, IGNORED, IGNORED], [5, EOS, 7, EOS], [0, 2])
    with pytest.raises(PipelineError, match="1 of 2 rows have all labels masked"):
        check("train", found)


def test_a_masked_eos_stops_the_stage() -> None:
    with pytest.raises(PipelineError, match="don't end in a trained end-of-text token"):
        check("train", counted([IGNORED, 6, IGNORED], [5, 6, EOS], [0]))


def test_a_label_that_is_not_its_token_stops_the_stage() -> None:
    with pytest.raises(PipelineError, match="1 labels differ"):
        check("train", counted([IGNORED, 9, EOS], [5, 6, EOS], [0]))


def test_a_window_that_overflows_stops_the_stage() -> None:
    with pytest.raises(PipelineError, match="longest window 3 of 2 tokens"):
        check("train", counted([IGNORED, 6, EOS], [5, 6, EOS], [0], room=2))


def test_the_longest_of_several_windows_is_reported() -> None:
    found = Audit(windows=3, window_tokens=8)
    ids = np.array([5, EOS, 7, 8, EOS, 9, EOS])
    ends = np.array([0, 2, 5, 7], dtype=np.int32)
    count(found, Window(ids, ids, ids, ends, ("a", "b", "c")), np.array([1, 1, 1]), {EOS})
    assert (found.longest_window, found.longest_row) == (3, 3)
    count(found, Window(ids, ids, ids, ends, ("a", "b", "c")), np.array([1, 2]), {EOS})
    assert (found.longest_window, found.longest_row) == (5, 3)


def test_a_tokenizer_that_loses_text_stops_the_stage() -> None:
    check_exact("train", inexact=1, total=100)
    with pytest.raises(PipelineError, match="2 of 100 rows decode to another text"):
        check_exact("train", inexact=2, total=100)
