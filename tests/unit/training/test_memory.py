"""A step that is out of memory continues at a smaller size with the same result."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import progress
from tasks.core.errors import PipelineError
from tasks.training.batches import split_window
from tasks.training.report.metrics_log import read_metrics
from tasks.training.steppers.autograd_stepper import AutogradStepper
from tasks.training.steppers.stepper import MIN_WINDOW_TOKENS, shrink
from tests.unit.training.conftest import make_window


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 60))
def test_a_window_is_cut_between_samples_and_loses_nothing(lengths: list[int], most: int) -> None:
    whole = make_window(*lengths, prompt=1)
    parts = split_window(whole, most)
    for name in ("input_ids", "labels", "position_ids"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert (joined == getattr(whole, name)).all()
    assert [i for part in parts for i in part.row_ids] == list(whole.row_ids)
    sizes = [np.diff(part.cu_seqlens).tolist() for part in parts]
    assert [n for part in sizes for n in part] == lengths
    assert all(sum(part) <= most or len(part) == 1 for part in sizes)
    for before, after in itertools.pairwise(sizes):
        assert sum(before) + after[0] > most  # no more parts than needed


class Sizes:
    """The sizes of a stepper."""

    lockstep = False

    def __init__(self, kept_layers: int, window_tokens: int) -> None:
        self.all = [(kept_layers, window_tokens)]
        self.kept_layers, self.window_tokens = kept_layers, window_tokens

    def resize(self, kept_layers: int, window_tokens: int) -> None:
        self.kept_layers, self.window_tokens = kept_layers, window_tokens
        self.all.append((kept_layers, window_tokens))


def test_sizes_shrink_to_an_end() -> None:
    stepper: Any = Sizes(9, 2000)
    while shrink(stepper):
        pass
    assert stepper.all == [(9, 2000), (4, 2000), (2, 2000), (1, 2000)] + [
        (0, n) for n in (2000, 1000, 500, MIN_WINDOW_TOKENS)
    ]


def curve(work: Any) -> list[float]:
    return [x["loss"] for x in read_metrics(work.out / "metrics.jsonl") if "loss" in x]


@pytest.mark.parametrize("path", ["auto", "off"])
def test_a_step_that_does_not_fit_continues_smaller_with_the_same_losses(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    from tasks.training.fast.step import FastStepper

    stepper: Any = FastStepper if path == "auto" else AutogradStepper
    changes = {
        "fast_path": path,
        "lora_dropout": 0.0,
        "max_steps": 6,
        "batch_tokens": 40,
        "kept_layers": 3,
        "log_every": 1,
    }
    _, whole = run_stage("whole", **changes)
    run, calls, said = stepper.run, [], []

    def limited(self: Any, windows: Any, *rest: Any) -> Any:
        result = run(self, windows, *rest)  # gradients are there when it fails
        calls.append((self.kept_layers, max(w.tokens for w in windows)))
        if len(calls) > 2 and (self.kept_layers > 0 or calls[-1][1] > 15):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result

    class Sink:
        def update(self, *_: Any) -> None: ...

        def message(self, text: str) -> None:
            said.append(text)

    monkeypatch.setattr(stepper, "run", limited)
    monkeypatch.setattr("tasks.training.steppers.stepper.MIN_WINDOW_TOKENS", 4)
    with progress.sink(Sink()):
        _, smaller = run_stage("smaller", **changes)
    assert curve(smaller) == pytest.approx(curve(whole), rel=1e-5)
    facts = json.loads((smaller.out / "training.json").read_text())
    wanted = json.loads((whole.out / "training.json").read_text())
    assert facts["kept_layers"] == 0 and facts["window_tokens"] <= 15
    for name in ("step", "tokens", "trained", "epoch", "total_steps"):
        assert facts[name] == wanted[name]
    told = [text for text in said if "out of GPU memory at step 3" in text]
    assert len(told) == len([text for text in said if "out of GPU memory" in text]) >= 3


def test_a_validation_that_does_not_fit_continues_smaller(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run_stage("whole", fast_path="off", max_steps=3)
    measure = AutogradStepper.measure

    def limited(self: Any, window: Any) -> Any:
        if self.kept_layers:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return measure(self, window)

    monkeypatch.setattr(AutogradStepper, "measure", limited)
    smaller, _ = run_stage("smaller", fast_path="off", max_steps=3)
    assert smaller.metrics["validation_loss"] == pytest.approx(whole.metrics["validation_loss"])


def test_what_never_fits_ends_with_the_limit_and_a_remedy(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutogradStepper, "run", full)
    with pytest.raises(PipelineError, match="training needs more than all of the GPU's memory"):
        run_stage(fast_path="off")
