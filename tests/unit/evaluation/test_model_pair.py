"""Both models in one load."""

from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch

from tasks.core.models.loading import load_model
from tasks.evaluation import answers
from tasks.evaluation import model_pair as pairs
from tasks.evaluation.generation.cached_generation import CachedGenerator, Decoding
from tasks.evaluation.generation.continuous_batching import Generated
from tasks.evaluation.model_pair import BASE, ModelPair
from tasks.evaluation.timing import Clock

IDS = torch.tensor([[5, 6, 7, 8]])


def test_the_base_is_loaded_once(
    weights: Path, tokenizer_folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def load(folder: Path, **settings: Any) -> Any:
        loads.append(folder)
        return load_model(folder, **settings)

    monkeypatch.setattr(pairs, "load_model", load)
    ModelPair.load(weights, tokenizer_folder, adapter, quantization="none", device="cpu")
    assert loads == [weights]


def test_with_the_adapter_off_it_is_the_base(pair: ModelPair, weights: Path) -> None:
    base = load_model(weights, quantization="none", device="cpu")
    with torch.no_grad(), pair.only(BASE):
        assert torch.equal(pair.model(input_ids=IDS).logits, base(input_ids=IDS).logits)


def test_in_4_bit_the_base_stays_in_4_bit_under_the_adapter(
    weights: Path, tokenizer_folder: Path, adapter: Path
) -> None:
    loaded = ModelPair.load(weights, tokenizer_folder, adapter, quantization="nf4", device="cpu")
    kinds = [type(module) for module in loaded.model.modules()]
    assert kinds.count(bitsandbytes.nn.Linear4bit) == 2 * 7  # layers, linears of one
    assert torch.isfinite(loaded.model(input_ids=IDS).logits).all()


def test_dropout_is_off(pair: ModelPair) -> None:
    assert not any(module.training for module in pair.model.modules())


def test_an_answer_ends_at_a_marker_that_came_in_other_tokens(
    pair: ModelPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tuple(pair.tokenizer("x = 1\n\n#")["input_ids"] + pair.tokenizer("## End y")["input_ids"])
    written = Generated(ids, len(ids), stopped=False)
    monkeypatch.setattr(pair, "generate", lambda *a, done, **settings: done(0, written))
    prompts = [answers.HeldOutPrompt("row", "project", "p", "x = 1\n\n### End")]
    decoding = Decoding(8, 1, (), "### End")
    (sample,) = answers.read(CachedGenerator(pair, Clock()), prompts, "instruction", decoding)
    assert (sample.base.text, sample.base.stopped) == ("x = 1\n\n", True)
    assert sample.reference == "x = 1"


def test_the_completion_template_has_no_end_marker(pair: ModelPair) -> None:
    decoding = Decoding.of(pair.tokenizer, "completion", 8, 1)
    assert decoding.stops == ((pair.tokenizer.eos_token_id,),)
