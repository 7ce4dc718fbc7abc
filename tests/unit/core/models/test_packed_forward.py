"""The packed forward pass and the chunked loss on tiny random models."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, StableLmConfig, StableLmForCausalLM

from tasks.core.models import packed_attention
from tasks.core.models.chunked_loss import targets_of, token_losses
from tasks.core.models.packed_attention import PACKED, cu_seqlens_mask
from tasks.core.models.packed_dataset import Window
from tasks.core.models.packed_forward import forward_hidden, window_tensors
from tests.unit.training.conftest import make_window

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def make(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2)).eval()
    return StableLmForCausalLM(StableLmConfig(**SHAPE, num_key_value_heads=4)).eval()


def parts(whole: Window) -> list[Window]:
    result = []
    for i, name in enumerate(whole.row_ids):
        cut = slice(whole.cu_seqlens[i], whole.cu_seqlens[i + 1])
        bounds = np.array([0, cut.stop - cut.start], dtype=np.int32)
        result.append(
            Window(
                whole.input_ids[cut], whole.labels[cut], whole.position_ids[cut], bounds, (name,)
            )
        )
    return result


CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["llama", "stablelm"])
def test_samples_of_a_window_do_not_see_each_other(kind: str) -> None:
    model, whole = make(kind), make_window(7, 1, 12)
    together = forward_hidden(model, window_tensors(whole, CPU))
    alone = torch.cat([forward_hidden(model, window_tensors(p, CPU)) for p in parts(whole)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_the_first_token_of_a_sample_is_never_a_target() -> None:
    labels = np.arange(6)
    predictors, targets = targets_of(labels, np.array([0, 2, 6], dtype=np.int32))
    assert predictors.tolist() == [0, 2, 3, 4]
    assert targets.tolist() == [1, 3, 4, 5]


def test_loss_is_the_shifted_one_of_transformers() -> None:
    model, whole = make("llama"), make_window(9)
    tensors = window_tensors(whole, CPU)
    hidden = forward_hidden(model, tensors)
    losses, _ = token_losses(hidden[tensors.predictors], model.lm_head, tensors.targets)
    labels = torch.from_numpy(whole.labels)[None]
    expected = model(input_ids=tensors.input_ids, labels=labels).loss
    torch.testing.assert_close(losses.mean(), expected)


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_chunked_losses_equal_full_logits_with_gradients(chunk: int) -> None:
    torch.manual_seed(1)
    head = torch.nn.Linear(16, 50, bias=True).requires_grad_(False)
    hidden = torch.randn(23, 16, requires_grad=True)
    targets, weights = torch.randint(0, 50, (23,)), torch.rand(23)
    losses, hits = token_losses(hidden, head, targets, chunk)
    (gradient,) = torch.autograd.grad((losses * weights).sum(), hidden)
    logits = head(hidden)
    full = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    (expected,) = torch.autograd.grad((full * weights).sum(), hidden)
    torch.testing.assert_close(losses, full)
    torch.testing.assert_close(gradient, expected)
    assert torch.equal(hits, logits.argmax(-1) == targets)


def test_sample_bounds_travel_as_a_mask_without_memory() -> None:
    mask = cu_seqlens_mask(torch.tensor([0, 3, 9], dtype=torch.int32), 6)
    assert mask.shape == (1, 1, 6, 3)
    assert mask.untyped_storage().nbytes() == 3 * 4


def test_packed_attention_hands_bounds_to_the_varlen_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def varlen(*arguments: Any, scale: float, window_size: tuple[int, int]) -> torch.Tensor:
        q, k, v, bounds, _, longest, _ = arguments
        assert window_size == (-1, 0)
        assert longest == 12
        pieces = []
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            cut = [x[start:stop].transpose(0, 1)[None] for x in (q, k, v)]
            out = torch.nn.functional.scaled_dot_product_attention(
                *cut, is_causal=True, scale=scale
            )
            pieces.append(out[0].transpose(0, 1))
        return torch.cat(pieces)

    model, whole = make("stablelm"), make_window(7, 1, 12)
    tensors = window_tensors(whole, CPU)
    expected = forward_hidden(model, tensors)
    packed_attention.register_packed_attention()
    monkeypatch.setattr(packed_attention, "_varlen", lambda: varlen)
    monkeypatch.setattr(packed_attention, "_causal_arguments", lambda: {"window_size": (-1, 0)})
    model.set_attn_implementation(PACKED)
    got = forward_hidden(model, tensors)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_generation_is_the_same_with_packed_attention() -> None:
    packed_attention.register_packed_attention()
    model = make("llama")
    ids = torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5]])
    arguments = {
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
        "max_new_tokens": 6,
        "do_sample": False,
        "pad_token_id": 0,
    }
    expected = model.generate(ids, **arguments)
    model.set_attn_implementation(PACKED)
    assert torch.equal(model.generate(ids, **arguments), expected)
