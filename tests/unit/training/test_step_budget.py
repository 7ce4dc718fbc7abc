"""Steps, windows of a step and learning rate from the number of tokens."""

from typing import Any

import pytest

from tasks.core.errors import PipelineError
from tasks.core.settings.config import check
from tasks.core.settings.train import TrainSettings
from tasks.training.step_budget import MAX_STEPS, StepBudget


def settings(**given: Any) -> TrainSettings:
    base = {"max_steps": "auto", "batch_tokens": 16_384, "learning_rate": 4e-4, "warmup_steps": 20}
    return check({"train": base | given}).train


def test_100_kb_of_code_train_for_tens_of_steps_not_for_2000() -> None:
    found = StepBudget.of(settings(), tokens=33_000, windows=9)
    assert (found.step_windows, found.passes, found.steps, found.warmup_steps) == (1, 3.0, 27, 2)
    assert found.learning_rate == 2e-4  # a quarter of the full step, so half of its rate
    assert str(found) == (
        "27 steps, 2 of them warm-up: 33,000 tokens in 9 windows, 3 passes, 1 window per step; "
        "learning rate 0.0002 instead of 0.0004, because the steps are smaller"
    )


def test_steps_are_as_large_as_leaves_a_hundred_of_them() -> None:
    found = [StepBudget.of(settings(), 4_000 * n, n) for n in (66, 67, 134, 700)]
    assert [(one.step_windows, one.steps) for one in found] == [
        *((1, 198), (2, 101), (4, 101), (4, 525))
    ]
    assert found[-1].learning_rate == 4e-4


def test_much_data_is_seen_in_part_and_the_passes_say_so() -> None:
    found = StepBudget.of(settings(), 400_000_000, 100_000)
    assert found.steps == MAX_STEPS
    assert found.passes == pytest.approx(0.08)
    assert found.warmup_steps == 20
    assert str(found).startswith("2,000 steps, the most that auto sets, 20 of them warm-up: ")


def test_a_single_step_or_window_is_written_in_the_singular() -> None:
    found = str(StepBudget.of(settings(epochs=1), tokens=500, windows=1))
    assert found.startswith("1 step, 0 of them warm-up: 500 tokens in 1 window, 1 pass, 1 window ")


def test_epochs_replace_the_three_passes() -> None:
    assert StepBudget.of(settings(epochs=1), 33_000, 9).steps == 9


def test_resolved_settings_hold_numbers_only() -> None:
    given = settings()
    found = StepBudget.of(given, 33_000, 9).resolved(given)
    assert (found.max_steps, found.epochs, found.batch_tokens) == (27, None, 3_667)
    assert (found.learning_rate, found.warmup_steps) == (2e-4, 2)


def test_data_of_less_than_a_window_is_one_step_a_pass() -> None:
    assert StepBudget.of(settings(), 500, 1).steps == 3


def test_auto_without_batch_tokens_is_refused_with_a_remedy_that_works() -> None:
    with pytest.raises(PipelineError) as refused:
        check({"train": {"max_steps": "auto"}})
    assert "batch_tokens" in refused.value.problem
    assert "train.batch_tokens, for example to 16384" in refused.value.remedy
    check({"train": {"max_steps": "auto", "batch_tokens": 16384}})


@pytest.mark.parametrize("value", [0, -1, "all", 1.5, True])
def test_another_value_of_max_steps_is_one_error(value: Any) -> None:
    with pytest.raises(PipelineError) as refused:
        check({"train": {"max_steps": value}})
    assert refused.value.problem.count("max_steps") == 1
