import numpy as np
import pyarrow as pa

from tasks.tokenization.encode import ENCODED
from tasks.tokenization.row_checks import (
    DROPPED,
    Limits,
    Rows,
    choose,
)


def chosen(*rows: tuple[int, int, int, bool], max_tokens: int = 100, least: float = 2.0) -> Rows:
    """Rows of (tokens, prompt tokens, characters of the completion, exact)."""
    tokens, prompts, characters, exact = zip(*rows, strict=True)
    encoded = pa.table([prompts, characters, exact], schema=ENCODED)
    ids = pa.array([f"r{number}" for number in range(len(rows))])
    limits = Limits(max_tokens, least)
    return choose("train", 0, ids, np.array(tokens, dtype=np.int64), encoded, limits)


def test_each_dropped_row_is_listed_with_its_value_and_the_threshold():
    rows = chosen((50, 9, 80, True), (101, 9, 400, True), (50, 9, 79, True), (50, 49, 0, True))
    assert rows.kept.tolist() == [0]
    ledger = rows.ledger()
    assert ledger.schema.equals(DROPPED)
    assert ledger.to_pylist() == [
        {"row_id": "r1", "split": "train", "reason": "too_long", "value": 101, "threshold": 100},
        {
            "row_id": "r2",
            "split": "train",
            "reason": "characters_per_token",
            "value": 79 / 40,
            "threshold": 2,
        },
        {
            "row_id": "r3",
            "split": "train",
            "reason": "empty_completion",
            "value": 0,
            "threshold": 1,
        },
    ]


def test_characters_of_the_prompt_dont_count_for_the_length_of_tokens():
    assert chosen((1000, 989, 20, True), max_tokens=2000).kept.tolist() == [0]
    assert chosen((1000, 989, 19, True), max_tokens=2000).kept.tolist() == []


def test_no_least_length_keeps_all():
    assert chosen((50, 9, 1, True), least=0).kept.tolist() == [0]


def test_a_split_without_dropped_rows_has_an_empty_ledger():
    assert chosen((50, 9, 80, True)).ledger().num_rows == 0
