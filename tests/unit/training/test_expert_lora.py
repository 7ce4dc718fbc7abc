"""LoRA on the fused experts of a tiny mixture of experts, through the stage and PEFT."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig

from tasks.core.errors import PipelineError
from tasks.core.models.experts.rank import expert_rank
from tasks.core.models.loading import attach_adapter, load_model
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.core.settings.config import check
from tasks.training.loop import Loop
from tasks.training.lora import add_lora
from tasks.training.report.metrics_log import read_metrics
from tests.unit.training.conftest import VOCABULARY


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The products are so small that threads wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory, bases: dict[str, Path]) -> Path:
    folder = tmp_path_factory.mktemp("moe")
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=256,
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(6)
    model.save_pretrained(folder)
    ModelTraits(experts=True).write(folder)
    bases["moe"] = folder
    return folder


def base(folder: Path) -> Any:
    return load_model(folder, quantization="none", device="cpu", dtype="float32", trainable=True)


def test_experts_in_4_bit_learn_and_their_adapter_is_plain_pefts(run_stage: Any, moe: Path) -> None:
    _, work = run_stage(kind="moe", quantization="nf4", dtype="float32", max_steps=16)
    losses = [line["loss"] for line in read_metrics(work.out / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0] - 0.5
    tensors = load_file(work.out / "adapter" / "adapter_model.safetensors")
    experts = {n: t for n, t in tensors.items() if ".experts." in n}
    assert len(experts) == 2 * 4
    assert all(bool(t.any()) for t in experts.values())
    facts = json.loads((work.out / "training.json").read_text())
    assert facts["trainable_parameters"] == sum(t.numel() for t in tensors.values())
    ids = torch.arange(9)[None]
    plain = AutoModelForCausalLM.from_pretrained(moe, dtype=torch.float32)
    with torch.no_grad():
        expected = PeftModel.from_pretrained(plain, work.out / "adapter")(input_ids=ids).logits
        found = attach_adapter(base(moe), work.out / "adapter")(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("moe")
def test_an_interrupted_training_of_experts_ends_with_the_same_adapter(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"kind": "moe", "batch_rows": 1, "max_steps": 6, "checkpoint_every": 2}
    _, whole = run_stage("whole", **changes)
    update = Loop._update

    def killed(self: Any, at: int) -> None:
        if at == 4:
            raise KeyboardInterrupt
        update(self, at)

    monkeypatch.setattr(Loop, "_update", killed)
    with pytest.raises(KeyboardInterrupt):
        run_stage("killed", **changes)
    monkeypatch.setattr(Loop, "_update", update)
    _, resumed = run_stage("killed", **changes)
    assert json.loads((resumed.out / "training.json").read_text())["resumed_from"] > 0
    first, second = (
        (work.out / "adapter" / "adapter_model.safetensors").read_bytes()
        for work in (whole, resumed)
    )
    assert first == second


def test_experts_have_the_scaling_of_linear_layers_and_no_dropout(moe: Path) -> None:
    for use_rslora in (False, True):
        tuned = add_lora(
            base(moe), rank=8, alpha=32, dropout=0.1, expert_rank=2, use_rslora=use_rslora
        )
        layer = tuned.get_base_model().model.layers[1]
        outer, linear = layer.mlp.experts, layer.self_attn.q_proj
        for wrapper in (outer, outer.base_layer):
            assert wrapper.r["default"] == 2
            assert wrapper.scaling["default"] == pytest.approx(linear.scaling["default"])
            assert not isinstance(wrapper.lora_dropout["default"], torch.nn.Dropout)
        assert linear.lora_dropout["default"].p == 0.1


def test_experts_of_the_last_layers_alone_get_lora(moe: Path) -> None:
    tuned = add_lora(base(moe), rank=4, alpha=8, dropout=0.0, expert_rank=2, last_layers=1)
    names = [n for n, p in tuned.named_parameters() if p.requires_grad and "experts" in n]
    assert len(names) == 4
    assert all(".layers.1." in name for name in names)


@pytest.mark.parametrize(
    ("settings", "rank"),
    [
        ({"lora_rank": 16}, 4),
        ({"lora_rank": 2}, 1),
        ({"expert_rank": 6}, 6),
        ({"expert_rank": 0}, 0),
        ({"target_modules": ["q_proj"]}, 0),
        ({"target_modules": ["q_proj"], "expert_rank": 3}, 3),
        ({"use_dora": True}, 0),
    ],
)
def test_the_rank_of_experts_follows_from_the_settings(settings: dict[str, Any], rank: int) -> None:
    assert expert_rank(check({"train": settings}).train, active=4) == rank


def test_a_rank_for_experts_that_cannot_be_trained_is_an_error(run_stage: Any) -> None:
    with pytest.raises(PipelineError, match=r"expert_rank is 2, and the base has 0 experts") as e:
        run_stage(expert_rank=2)
    assert e.value.remedy == "Set train.expert_rank to null."
    with pytest.raises(PipelineError, match=r"expert_rank is 2 and use_dora is on"):
        check({"train": {"expert_rank": 2, "use_dora": True}})
