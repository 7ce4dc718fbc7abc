"""Losses of rows: chosen, joined, summed by row, for base and tuned in one pass."""

import gc
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import IGNORED, Window, Windows
from tasks.core.models.packing import join_rows
from tasks.evaluation import row_losses
from tasks.evaluation.metrics import hf_token_accuracy
from tasks.evaluation.metrics.hf_token_accuracy import TokenAccuracy
from tasks.evaluation.model_pair import BASE, TUNED, ModelPair
from tasks.evaluation.results import RowResult

lengths = st.lists(st.integers(1, 50), min_size=1, max_size=20).map(
    lambda sizes: [(f"row{i}", size) for i, size in enumerate(sizes)]
)


def rows_of(inputs: dict[str, Path]) -> list[Window]:
    return list(Windows.open(inputs["tokenize.test"]).rows())


def measure(
    pair: ModelPair, windows: Any, clusters: dict[str, str] | None = None
) -> list[RowResult]:
    return row_losses.measure(
        pair.model,
        windows,
        clusters=clusters or {},
        byte_count=len,
        endings=pair.endings("instruction"),
    )


def logits_of(pair: ModelPair, who: str, row: Window) -> torch.Tensor:
    """Plain transformers and peft, all logits at once."""
    with torch.no_grad(), pair.only(who):
        return pair.model(input_ids=torch.from_numpy(row.input_ids)[None]).logits[0]


# --- which rows --------------------------------------------------------------------------------


@given(lengths, st.integers(1, 300), st.randoms())
def test_the_choice_depends_on_the_rows_and_not_on_their_order(rows, limit, random) -> None:
    mixed = rows.copy()
    random.shuffle(mixed)
    assert row_losses.choose_rows(rows, limit) == row_losses.choose_rows(mixed, limit)


@given(lengths, st.integers(1, 300))
def test_the_choice_keeps_to_the_limit_and_counts_what_it_left_out(rows, limit) -> None:
    choice = row_losses.choose_rows(rows, limit)
    assert choice.tokens == sum(size for row, size in rows if row in choice.row_ids)
    assert choice.tokens <= limit or len(choice.row_ids) == 1
    assert len(choice.row_ids) + choice.left_out == len(rows)


def test_without_a_limit_every_row_is_chosen() -> None:
    choice = row_losses.choose_rows([("a", 5), ("b", 7)], None)
    assert (choice.row_ids, choice.tokens, choice.left_out) == ({"a", "b"}, 12, 0)


def test_another_seed_is_another_choice() -> None:
    rows = [(f"row{i}", 1) for i in range(40)]
    assert row_losses.choose_rows(rows, 5, 0).row_ids != row_losses.choose_rows(rows, 5, 1).row_ids


# --- joined rows ---------------------------------------------------------------------------------


@given(lengths, st.integers(1, 120))
def test_joining_loses_no_token_and_mixes_no_rows(sizes, limit) -> None:
    rows = [row_losses.plain_row(name, list(range(size))) for name, size in sizes]
    windows = list(join_rows(rows, limit))
    assert [r for w in windows for r in w.row_ids] == [name for name, _ in sizes]
    for window in windows:
        assert len(window.input_ids) <= limit or len(window.row_ids) == 1
        bounds = window.cu_seqlens
        assert bounds[0] == 0
        assert bounds[-1] == len(window.input_ids)
        assert (window.labels[bounds[:-1]] == IGNORED).all()
        assert (window.position_ids[bounds[:-1]] == 0).all()


def test_a_row_measures_the_same_alone_and_joined(pair: ModelPair, inputs: dict[str, Path]) -> None:
    rows = rows_of(inputs)
    alone, together = measure(pair, rows), measure(pair, join_rows(rows, 400))
    for one, other in zip(alone, together, strict=True):
        assert one.row_id == other.row_id
        assert one.base_correct == other.base_correct
        assert one.tuned_loss_sum == pytest.approx(other.tuned_loss_sum, rel=1e-4)


# --- what is measured ----------------------------------------------------------------------------


@pytest.mark.parametrize("who", [BASE, TUNED])
def test_losses_are_those_of_plain_transformers(
    pair: ModelPair, inputs: dict[str, Path], who: str
) -> None:
    row = rows_of(inputs)[0]
    labels = torch.from_numpy(row.labels)
    wanted = torch.nn.functional.cross_entropy(
        logits_of(pair, who, row)[:-1], labels[1:], ignore_index=IGNORED, reduction="sum"
    )
    found = measure(pair, [row])[0]
    both = getattr(found, f"{who}_loss_sum") + getattr(found, f"{who}_ending_loss_sum")
    assert both == pytest.approx(wanted.item(), rel=1e-4)


def test_base_and_tuned_differ(pair: ModelPair, inputs: dict[str, Path]) -> None:
    result = measure(pair, rows_of(inputs)[:1])[0]
    assert abs(result.base_loss_sum - result.tuned_loss_sum) > 0.1


def test_the_adapter_is_on_again_after_measuring(pair: ModelPair, inputs: dict[str, Path]) -> None:
    row = rows_of(inputs)[0]
    before = logits_of(pair, TUNED, row)
    measure(pair, [row])
    assert torch.equal(before, logits_of(pair, TUNED, row))


def test_only_trained_tokens_are_counted(pair: ModelPair, inputs: dict[str, Path]) -> None:
    row = rows_of(inputs)[0]
    found = measure(pair, [row])[0]
    assert found.tokens + found.ending_tokens == row.trained_tokens < len(row.input_ids) - 1


def test_a_row_without_a_label_counts_zero_tokens(pair: ModelPair, inputs: dict[str, Path]) -> None:
    row = rows_of(inputs)[0]
    masked = replace(row, labels=np.full_like(row.labels, IGNORED))
    result = measure(pair, [masked])[0]
    assert (result.tokens, result.base_loss_sum, result.tuned_correct) == (0, 0.0, 0)


def test_rows_carry_their_project_or_themselves(pair: ModelPair, inputs: dict[str, Path]) -> None:
    rows = rows_of(inputs)[:2]
    found = measure(pair, rows, {rows[0].row_ids[0]: "numpy"})
    assert [r.cluster for r in found] == ["numpy", rows[1].row_ids[0]]


def test_bytes_are_those_of_the_text_behind_the_counted_tokens(
    pair: ModelPair, inputs: dict[str, Path]
) -> None:
    row = rows_of(inputs)[0]
    found = row_losses.measure(
        pair.model,
        [row],
        clusters={},
        byte_count=lambda ids: len(pair.text(ids).encode()),
        endings=pair.endings("instruction"),
    )[0]
    assert found.text_bytes == len(b"def add0(a):\n    return a + 0\n")


def test_no_tensor_of_all_logits_is_made(
    pair: ModelPair, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the head ran over every position")

    monkeypatch.setattr(pair.model.get_base_model().lm_head, "forward", forward)
    measure(pair, rows_of(inputs)[:1])


def test_what_is_held_does_not_grow_with_the_rows(pair: ModelPair, inputs: dict[str, Path]) -> None:
    held: list[tuple[int, int]] = []

    def weigh(tokens: int) -> None:
        things = gc.get_objects()
        tensors = [thing for thing in things if type(thing) is torch.Tensor]
        windows = sum(type(thing) is Window for thing in things)
        held.append((sum(tensor.nbytes for tensor in tensors), windows))

    many = (row for _ in range(4) for row in Windows.open(inputs["tokenize.test"]).rows())
    found = row_losses.measure(
        pair.model,
        join_rows(many, 400),
        clusters={},
        byte_count=len,
        endings=pair.endings("instruction"),
        done=weigh,
    )
    assert len(found) == 48
    assert len(held) > 20
    early, late = held[2 : len(held) // 2], held[len(held) // 2 : -1]
    assert max(late) <= max(early)


# --- token accuracy as an evaluate.Metric ----------------------------------------------------


def test_the_metric_equals_what_is_counted_beside_the_loss(
    pair: ModelPair, inputs: dict[str, Path], tmp_path: Path
) -> None:
    rows = rows_of(inputs)
    metric = TokenAccuracy(tmp_path)
    for row in rows:
        likeliest = logits_of(pair, TUNED, row).argmax(-1).numpy()
        content = np.where(pair.endings("instruction").mask(row), IGNORED, row.labels)
        metric.add_batch(predictions=[likeliest], references=[content])
    found = measure(pair, join_rows(rows, 400))
    result = metric.compute()
    assert result["correct"] == sum(r.tuned_correct for r in found)
    assert result["tokens"] == sum(r.tokens for r in found)
    assert result["token_accuracy"] == hf_token_accuracy.of_rows(found, tmp_path)[1]


def test_accuracy_compares_one_position_apart(tmp_path: Path) -> None:
    predictions, labels = [[7, 8, 9, 1]], [[5, 7, 8, 9]]
    result = TokenAccuracy(tmp_path).compute(predictions=predictions, references=labels)
    assert result["token_accuracy"] == 1.0


def test_accuracy_leaves_unlabelled_tokens_out(tmp_path: Path) -> None:
    result = TokenAccuracy(tmp_path).compute(
        predictions=[[1, 2, 3, 4]], references=[[IGNORED, IGNORED, 2, 0]]
    )
    assert (result["correct"], result["tokens"]) == (1, 2)


def test_the_metric_keeps_no_batch(tmp_path: Path) -> None:
    metric = TokenAccuracy(tmp_path)
    for _ in range(3):
        metric.add_batch(predictions=np.ones((2, 5)), references=np.ones((2, 5)))
    assert len(metric) == 0
    assert metric.compute()["tokens"] == 24


def test_the_metric_starts_anew_after_computing(tmp_path: Path) -> None:
    metric = TokenAccuracy(tmp_path)
    metric.compute(predictions=[[1, 1]], references=[[1, 1]])
    assert math.isnan(metric.compute()["token_accuracy"])


def test_a_model_that_overflows_float16_is_an_error_and_no_loss(
    weights: Path, tokenizer_folder: Path, adapter: Path, inputs: dict[str, Path]
) -> None:
    pair = ModelPair.load(
        weights, tokenizer_folder, adapter, quantization="none", device="cpu", dtype="float16"
    )
    (first, *_) = measure(pair, rows_of(inputs)[:1])
    assert math.isfinite(first.base_loss_sum)
    pair.model.get_base_model().model.layers[0].mlp.down_proj.weight.data.fill_(6e4)
    with pytest.raises(PipelineError, match=r"loss of a row is not finite in float16: .* 65,504"):
        measure(pair, rows_of(inputs)[:1])
