from tasks.tokenization.audit import Audit
from tasks.tokenization.epoch_estimate import estimate_epoch, lines, steps

AUDIT = Audit(
    rows=1000,
    tokens=389_000,
    trained_tokens=291_750,
    windows=100,
    window_tokens=4096,
)


def test_the_steps_of_an_epoch_are_counted_for_a_range_of_batches() -> None:
    found = estimate_epoch(AUDIT, 7, 2048)
    assert found["trained_share"] == 0.75 and found["rows_too_long"] == 7
    assert found["padding_share"] == round(1 - 389_000 / 409_600, 6)
    assert found["steps_an_epoch"]["by_rows"]["4"] == 250
    assert found["steps_an_epoch"]["by_tokens"]["16384"] == 24


def test_a_last_smaller_step_counts() -> None:
    assert [steps(n, 4) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_the_lines_name_the_rows_left_out() -> None:
    assert lines(estimate_epoch(AUDIT, 7, 2048)) == [
        "to train on: 1,000 rows, 389,000 tokens, 75.0 % of them with loss; "
        "left out: 7 rows of more than 2,048 tokens",
        "packed: 100 windows of 4,096 tokens, 5.0 % padding",
        "one epoch, by the size of a step: 250 of 4 rows or 63 of 16 rows or 95 of 4,096 tokens or "
        "24 of 16,384 tokens",
    ]
