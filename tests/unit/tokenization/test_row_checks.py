import numpy as np
import pyarrow as pa

from tasks.tokenization.encode import ENCODED
from tasks.tokenization.row_checks import (
    DROPPED,
    MEASURED_TOKENS,
    CheckedRows,
    RowLimits,
    check_rows,
)


def checked(
    *rows: tuple[int, int, int, bool],
    max_tokens: int = 100,
    least: float = 2.0,
    can_split: bool = False,
) -> CheckedRows:
    """Rows of (tokens, prompt tokens, bytes of the completion, exact)."""
    tokens, prompts, text_bytes, exact = zip(*rows, strict=True)
    count = len(rows)
    spans = [[prompt, total] for prompt, total in zip(prompts, tokens, strict=True)]
    text_tokens = [total - prompt - 1 for prompt, total in zip(prompts, tokens, strict=True)]
    flags = [[True] * count, [can_split] * count, [""] * count]
    encoded = pa.table([spans, text_bytes, text_tokens, exact, *flags], schema=ENCODED)
    ids = pa.array([f"r{number}" for number in range(len(rows))])
    limits = RowLimits(max_tokens, least)
    return check_rows("train", 0, ids, np.array(tokens, dtype=np.int64), encoded, limits)


def test_each_dropped_row_is_listed_with_its_value_and_the_threshold():
    rows = checked((50, 9, 80, True), (101, 9, 400, True), (50, 9, 79, True), (50, 49, 0, True))
    assert rows.kept.tolist() == [0]
    dropped = rows.dropped_table()
    assert dropped.schema.equals(DROPPED)
    assert dropped.to_pylist() == [
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
    assert checked((1000, 959, 80, True), max_tokens=2000).kept.tolist() == [0]
    assert checked((1000, 959, 79, True), max_tokens=2000).kept.tolist() == []


def test_answer_of_a_few_tokens_is_not_measured_by_their_length():
    few = MEASURED_TOKENS - 1
    assert checked((50, 49 - few, few, True), (50, 48 - few, few + 1, True)).kept.tolist() == [0]


def test_no_least_length_keeps_all():
    assert checked((50, 9, 1, True), least=0).kept.tolist() == [0]


def test_a_split_without_dropped_rows_has_an_empty_table_of_them():
    assert checked((50, 9, 80, True)).dropped_table().num_rows == 0
