import numpy as np
import pyarrow as pa
import pytest

from tasks.tokenization.encode import ENCODED
from tasks.tokenization.samples import Samples, Spans, split_samples


@pytest.mark.parametrize("total", [1, 2, 8, 9, 15, 16, 100, 1000])
def test_every_token_of_a_text_but_the_first_is_trained_once(total: int) -> None:
    samples = split_samples(np.array([0]), np.array([total]), max_tokens=8)
    trained = [at for _, start, stop in samples.places() for at in range(start + 1, stop)]
    assert trained == list(range(1, total))
    assert samples.tokens.max() <= 8


def test_samples_of_a_text_are_about_equally_long() -> None:
    samples = split_samples(np.array([0]), np.array([101]), max_tokens=60)
    assert samples.tokens.tolist() == [51, 51]


def test_short_rows_stay_whole() -> None:
    samples = split_samples(np.array([0, 2]), np.array([5, 90, 8]), max_tokens=8)
    assert samples.places() == [(0, 0, 5), (2, 0, 8)]


def spans_of(*rows: list[int]) -> Spans:
    count = len(rows)
    columns = [list(rows), *[[0] * count] * 2, *[[True] * count] * 3, [""] * count]
    return Spans.of(pa.table(columns, schema=ENCODED))


def test_spans_are_counted_from_the_start_of_a_sample() -> None:
    spans = spans_of([2, 4, 7, 9], [], [0, 3])
    assert spans.counts.tolist() == [2, 0, 1]
    assert (spans.starts.tolist(), spans.ends.tolist()) == ([2, 0, 0], [9, 0, 3])
    cut = spans.cut(Samples(np.array([0, 1, 2, 0]), np.array([3, 0, 0, 7]), np.array([8, 2, 3, 9])))
    assert cut.values.tolist() == [0, 1, 4, 5, 0, 3, 0, 2]
    assert cut.offsets.tolist() == [0, 4, 4, 6, 8]


def test_parts_of_a_long_prompt_have_nothing_to_train_and_are_left_out() -> None:
    samples = split_samples(np.array([0, 1]), np.array([29, 5]), max_tokens=8)
    kept = samples.with_labels(spans_of([20, 29], [2, 5]))
    assert kept.places() == [(0, 14, 22), (0, 21, 29), (1, 0, 5)]
