"""Target layers of LoRA, and parameter counts."""

from typing import Any

import pytest
import torch

from tasks.core.errors import PipelineError
from tasks.training.lora import add_lora, parameter_counts, pick_targets
from tests.unit.training.conftest import tiny


def lora(**changes: Any) -> Any:
    return add_lora(tiny("llama"), **{"rank": 4, "alpha": 16, "dropout": 0.0} | changes)


def test_every_linear_layer_but_the_head_gets_lora() -> None:
    names = {n.split(".lora_")[0] for n, p in lora().named_parameters() if p.requires_grad}
    assert {n.rpartition(".")[2] for n in names} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    assert len(names) == 3 * 7


def test_lora_goes_on_the_last_layers_alone() -> None:
    names = [n for n, p in lora(last_layers=1).named_parameters() if p.requires_grad]
    assert all(".layers.2." in name for name in names)
    assert len(names) == 2 * 7


def test_rank_stabilised_lora_scales_by_the_root_of_the_rank() -> None:
    layer = lora(use_rslora=True).get_base_model().model.layers[0].mlp.up_proj
    assert layer.scaling["default"] == pytest.approx(16 / 2)
    layer = lora().get_base_model().model.layers[0].mlp.up_proj
    assert layer.scaling["default"] == pytest.approx(16 / 4)


def test_dora_trains_magnitudes_too() -> None:
    assert any("magnitude" in n for n, p in lora(use_dora=True).named_parameters())


def test_unknown_targets_are_named_with_the_known_ones() -> None:
    with pytest.raises(PipelineError, match=r"no qkv\nChoose among k_proj, q_proj"):
        pick_targets(("k_proj", "q_proj"), ("qkv", "q_proj"))


def test_the_trainable_share_is_lora_over_all() -> None:
    model = lora()
    trained, total = parameter_counts(model)
    assert trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert total == sum(p.numel() for p in model.parameters())


def test_the_same_seed_starts_the_same_adapter() -> None:
    a, b, c = lora(seed=1), lora(seed=1), lora(seed=2)
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight"
    first = a.get_parameter(name)
    assert torch.equal(first, b.get_parameter(name))
    assert not torch.equal(first, c.get_parameter(name))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_extra_modules_train_whole_and_in_32_bit(kind: torch.dtype) -> None:
    from tasks.core.models.packed_forward import window_tensors
    from tasks.training.steppers.autograd_stepper import AutogradStepper
    from tasks.training.steppers.flat_parameters import FlatParameters
    from tests.unit.training.conftest import make_window

    model = add_lora(
        tiny("llama").to(kind),
        rank=4,
        alpha=16,
        dropout=0.0,
        extra_modules=("embed_tokens", "norm", "input_layernorm"),
    )
    flat = FlatParameters(model)
    extra = [name for name in flat.names if "lora_" not in name]
    assert len(extra) == 1 + 1 + 3
    assert not any("post_attention_layernorm" in name for name in extra)
    window = window_tensors(make_window(9, 12), torch.device("cpu"))
    AutogradStepper(model, 0).run([window], window.trained_tokens, seed=1)
    assert all(float(flat.views[name][1].abs().sum()) > 0 for name in extra)


@pytest.mark.parametrize("name", ["lm_head", "q_proj", "nothing"])
def test_what_can_not_be_trained_whole_is_named_with_what_can(name: str) -> None:
    with pytest.raises(PipelineError, match=rf"{name} can't be trained fully\nChoose among embed"):
        lora(extra_modules=(name,))
