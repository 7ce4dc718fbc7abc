import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from tasks.core.errors import PipelineError
from tasks.core.models.loading import load_model
from tasks.core.rows.data_card import DataCard, Split
from tasks.core.settings.merge import MergeSettings
from tasks.core.text import prompt_templates
from tasks.merging import run as merging
from tasks.merging.strategies import registry
from tests.unit.merging.conftest import (
    GATE,
    make_adapter,
    make_base,
    reference,
)

REGRESSED = GATE | {"verdict": "regressed", "reasons": ["Loss on held-out is worse."]}


def test_base16_is_pefts_merge_rounded_once(stage):
    stage.run(strategy="base16")
    merged = AutoModelForCausalLM.from_pretrained(stage.model, dtype="auto").state_dict()
    for name, tensor in reference(stage.root / "weights", stage.root / "adapter").items():
        torch.testing.assert_close(merged[name], tensor.bfloat16(), atol=0, rtol=0.01)


def test_dequantized_is_the_model_that_the_adapter_was_trained_on(stage):
    stage.run(strategy="dequantized")
    base = load_model(stage.root / "weights", quantization="nf4", device="cpu", dtype="bfloat16")
    tuned = PeftModel.from_pretrained(base, stage.root / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(stage.model, dtype=torch.float32)
    plain = reference(stage.root / "weights", stage.root / "adapter")
    ids = torch.arange(1, 25)[None]
    with torch.inference_mode():
        expected, found = tuned(ids).logits.float(), merged(ids).logits
        merged.load_state_dict(plain)
        without = merged(ids).logits
    off = (found - expected).norm() / expected.norm()
    assert off < 0.05  # bfloat16
    assert off < 0.2 * (without - expected).norm() / expected.norm()


def test_best_keeps_one_and_the_card_shows_both(stage):
    summary = stage.run(strategy="best")
    card = (stage.model / "README.md").read_text()
    assert {"loss_base16", "loss_dequantized", "loss_evaluated"} <= set(summary.metrics)
    assert card.count(", kept |") == 1
    assert "merged, base16" in card and "merged, dequantized" in card
    assert "| 16-bit base + adapter |" in card
    assert [file.name for file in (stage.root / "out").iterdir()] == ["model"]


def test_card_lists_the_training_data(stage):
    splits = (Split("train", 2, 1234, 2),)
    stage.data = DataCard(splits, "", (("BSD-3-Clause", 1), ("MIT", 1)))
    validation = [{"loss": 2.0}, {"loss": 1.5}]
    stage.steps = {"step": 20, "tokens": 40639, "validation": validation}
    stage.run(strategy="base16")
    card = (stage.model / "README.md").read_text()
    assert "| train | 2 | 2 | 1,234 |" in card
    assert "Licenses of the training rows: BSD-3-Clause (1), MIT (1)." in card
    assert "20 steps, 40,639 tokens; validation loss 2.000 before, 1.500 after." in card


def test_best_is_the_lower_loss(stage):
    metrics = stage.run(strategy="best").metrics
    lower = min(("base16", "dequantized"), key=lambda s: metrics[f"loss_{s}"])
    assert f"merged, {lower}, kept" in (stage.model / "README.md").read_text()


def test_unquantized_base_has_one_strategy(stage):
    assert "loss_dequantized" not in stage.run(quantization="none").metrics


def test_a_merge_that_misses_its_tolerance_fails_with_both_numbers(stage):
    with pytest.raises(PipelineError, match=r"at \d+\.\d % of positions, at least 100\.0 %"):
        stage.run(strategy="base16", min_agreement=1.0, tolerance_percent=100)


def test_regressed_model_is_not_merged(stage):
    stage.write("gate.json", REGRESSED)
    with pytest.raises(PipelineError, match="regressed: Loss on held-out is worse"):
        stage.run()


def test_force_merges_and_the_card_says_so(stage):
    stage.write("gate.json", REGRESSED)
    stage.run(force=True, strategy="base16")
    assert "against this verdict, by `merge.force`" in (stage.model / "README.md").read_text()


def test_force_is_not_mentioned_where_it_changed_nothing(stage):
    stage.run(force=True, strategy="base16")
    assert "merge.force" not in (stage.model / "README.md").read_text()


def test_tied_embeddings_stay_tied(stage):
    make_base(stage.root / "weights", tied=True)
    make_adapter(stage.root / "weights", stage.root / "adapter")
    stage.run(strategy="best")
    model = AutoModelForCausalLM.from_pretrained(stage.model, dtype="auto")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    base = AutoModelForCausalLM.from_pretrained(stage.root / "weights", dtype=torch.bfloat16)
    assert torch.equal(model.lm_head.weight, base.lm_head.weight)


def test_stablelm_merges(stage):
    make_base(stage.root / "weights", "stablelm")
    make_adapter(stage.root / "weights", stage.root / "adapter")
    stage.run(strategy="best", max_shard_gib=0.0001)
    assert (stage.model / "model.safetensors.index.json").exists()


def test_adapter_of_another_base_is_rejected(stage):
    file = stage.root / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes().replace(b"layers.1.", b"layers.7."))
    with pytest.raises(PipelineError, match=r"5 layers that the base does not have, such as .*7"):
        stage.run()


def test_empty_held_out_split_is_rejected(stage):
    for file in (stage.root / "test").iterdir():
        file.unlink()
    write_empty(stage.root / "test")
    with pytest.raises(PipelineError, match="0 rows"):
        stage.run()


def write_empty(folder):
    from tests.unit.merging.conftest import write_windows

    write_windows(folder, rows=0)


def test_disk_is_checked_before_anything_is_written(stage, monkeypatch):
    def full(*_, **__):
        raise PipelineError("merging needs 9 GiB of disk and 1 GiB are free", "Free it.")

    monkeypatch.setattr(merging, "check_disk", full)
    with pytest.raises(PipelineError, match="9 GiB of disk and 1 GiB"):
        stage.run()
    assert not list((stage.root / "out").iterdir())


def test_the_model_comes_with_config_tokenizer_and_licences(stage):
    stage.run(strategy="base16", dtype="float16")
    names = {file.name for file in stage.model.iterdir()}
    assert names == {
        "LICENSE",
        "NOTICE.txt",
        "model_traits.json",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "prompt_format.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert json.loads((stage.model / "config.json").read_text())["dtype"] == "float16"
    modes = {file.stat().st_mode & 0o777 for file in stage.model.iterdir()}
    assert len(modes) == 1  # weights are not closed to others while the rest is open


def test_card_lists_base_license_verdict_and_numbers(stage):
    stage.run(strategy="base16")
    card = (stage.model / "README.md").read_text()
    for words in (
        "base_model: tiny/llama\n",
        "license: mit\n",
        "**improved**",
        "| 2.000 | 1.500 | −0.500 nats | −0.600 to −0.400 nats |",
        "| measured: held-out | 12 | 12 | 240 |",
        "rank 4, alpha 8",
        "See LICENSE, NOTICE.txt beside this card.",
    ):
        assert words in card


def test_card_shows_a_prompt_as_the_model_was_trained_on(stage):
    stage.run(strategy="base16")
    card = (stage.model / "README.md").read_text()
    task = "Write a function that returns the n-th Fibonacci number."
    assert f"````text\n{prompt_templates.render('instruction', task)}\n````" in card
    assert r"stop_strings=['\n\n### End', '### End'], tokenizer=tokenizer)" in card


def test_two_merges_are_the_same_bytes(stage):
    stage.run(strategy="best")
    stage.run(out="again", strategy="best")
    for file in stage.model.iterdir():
        assert (stage.root / "again" / "model" / file.name).read_bytes() == file.read_bytes()


def test_dequantizing_an_unquantized_base_is_rejected_by_the_settings():
    with pytest.raises(ValidationError, match="nothing to dequantize"):
        MergeSettings(strategy="dequantized", quantization="none")


def test_settings_offer_every_strategy():
    names = {strategy.name for strategy in registry.STRATEGIES}
    assert set(get_args(MergeSettings.model_fields["strategy"].annotation)) == names | {"best"}


def test_every_strategy_file_is_listed():
    files = {path.stem for path in Path(registry.__file__).parent.glob("*.py")}
    listed = {strategy.name for strategy in registry.STRATEGIES}
    assert files - {"__init__", "protocol", "registry"} == listed
