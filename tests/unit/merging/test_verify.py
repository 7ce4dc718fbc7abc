import numpy as np
import torch
from transformers import AutoModelForCausalLM

from tasks.core.models.packed_dataset import Windows
from tasks.merging.verify import (
    Measured,
    MergeCheck,
    best,
    compare,
    measure,
    sample_rows,
)
from tests.unit.merging.conftest import make_base, write_windows

LIMITS = {"tolerance_percent": 1.0, "min_agreement": 0.9}
TEN = np.arange(10)


def test_loss_and_next_tokens_are_those_of_the_model(tmp_path):
    make_base(tmp_path / "weights")
    write_windows(tmp_path / "test", rows=3)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "weights", dtype=torch.float32)
    rows = list(Windows.open(tmp_path / "test").rows())
    found = measure(model, rows, "checking")
    losses, picked = [], []
    for row in rows:
        ids, labels = torch.from_numpy(row.input_ids)[None], torch.from_numpy(row.labels)[None]
        out = model(input_ids=ids, labels=labels)
        losses.append(out.loss.item())
        picked.append(out.logits[0, 3:-1].argmax(-1).numpy())  # 4 prompt tokens
    assert abs(found.loss - np.mean(losses)) < 1e-5
    assert (found.tokens == np.concatenate(picked)).all()


def test_the_sample_ends_before_the_limit_but_is_never_empty(tmp_path):
    write_windows(tmp_path / "test", rows=5, tokens=20)
    rows = Windows.open(tmp_path / "test")
    assert [len(sample_rows(rows.rows(), limit)) for limit in (1, 20, 59, 60, 999)] == [
        1,
        1,
        2,
        3,
        5,
    ]


def test_higher_loss_is_rejected_with_both_numbers():
    found = compare("base16", Measured(2.1, TEN), Measured(2.0, TEN), 2.0, **LIMITS)
    assert "loss 2.1000 against 2.0000" in found.problem


def test_a_lower_loss_than_unmerged_is_accepted_with_other_next_tokens():
    better = Measured(1.5, TEN + 1)
    assert not compare("base16", better, Measured(2.0, TEN), 2.0, **LIMITS).problem


def test_loss_below_the_evaluated_model_is_accepted_and_above_is_not():
    assert not compare("base16", Measured(1.5, TEN), Measured(1.5, TEN), 2.0, **LIMITS).problem
    worse = compare("base16", Measured(1.5, TEN), Measured(1.5, TEN), 1.4, **LIMITS)
    assert "loss 1.5000 against 1.4000 of the model that was evaluated" in worse.problem


def test_nan_is_rejected():
    assert compare("base16", Measured(float("nan"), TEN), Measured(2.0, TEN), 2.0, **LIMITS).problem


def test_different_next_tokens_are_rejected_with_both_numbers():
    other = np.where(TEN < 3, 99, TEN)
    found = compare("base16", Measured(2.0, other), Measured(2.0, TEN), 2.0, **LIMITS)
    assert found.agreement == 0.7
    assert "70.0 %" in found.problem and "90.0 %" in found.problem


def test_best_is_the_lowest_loss_among_the_usable():
    checks = [
        MergeCheck("a", 1.0, 1.0, 0.1, "off"),
        MergeCheck("b", 1.3, 1.3, 1.0),
        MergeCheck("c", 1.2, 1.2, 1.0),
    ]
    assert best(checks).strategy == "c"
    assert best(checks[:1]) is None
