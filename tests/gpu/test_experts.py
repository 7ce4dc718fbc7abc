"""Fused experts on a real GPU: 4 bit with LoRA learns as 16 bit does, and takes less memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, OlmoeConfig, Qwen3MoeConfig

from tasks.core.models.device import GIB, free_gpu, peak_vram_gib, reset_peak
from tasks.core.models.experts.fused import fused_weights, values_of
from tasks.core.models.loading import load_model
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.core.stage import Work
from tasks.training.lora import add_lora
from tasks.training.steppers.autograd_stepper import set_checkpointing
from tests.gpu.conftest import SHAPE, curve

RANK = 8
TOKENS = 4096


def saved(config: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    ModelTraits(experts=True).write(folder)
    del model
    free_gpu()
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
    config = Qwen3MoeConfig(**SHAPE | experts | {"num_hidden_layers": 4, "head_dim": 64})
    return saved(config, tmp_path_factory.mktemp("moe"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the 16 layers of OLMoE-1B-7B, whose experts are 0.8 billion of its weights."""
    config = OlmoeConfig(
        num_hidden_layers=2, intermediate_size=1024, vocab_size=1024, pad_token_id=1
    )
    return saved(config, tmp_path_factory.mktemp("olmoe"))


def test_experts_in_4_bit_with_lora_learn_as_in_16_bit(train: Callable[..., Work]) -> None:
    changes: dict[str, Any] = {"max_steps": 60, "lora_dropout": 0.05}
    quantized = curve(train("nf4", **changes))
    whole = curve(train("bf16", quantization="none", **changes))
    untrained = curve(train("linear", expert_rank=0, **changes))
    last = [float(np.mean(losses[-10:])) for losses in (quantized, whole, untrained)]
    print(
        f"loss {quantized[0]:.3f} -> nf4 {last[0]:.3f}, bf16 {last[1]:.3f}, no LoRA on experts "
        f"{last[2]:.3f}"
    )
    assert last[0] < last[2] - 0.1  # LoRA on the experts learns more than none
    assert abs(last[0] / last[1] - 1) < 0.02


def step(model: Any) -> tuple[float, torch.Tensor]:
    """GiB that one step with gradients needs beside the model, and its hidden states."""
    model.train()
    set_checkpointing(model, 0)
    ids = torch.arange(TOKENS, device="cuda")[None] % 1000
    free_gpu()
    before = torch.cuda.memory_allocated() / GIB
    torch.cuda.reset_peak_memory_stats()
    hidden = model.get_base_model().model(input_ids=ids, use_cache=False).last_hidden_state
    hidden.float().square().mean().backward()
    return torch.cuda.max_memory_allocated() / GIB - before, hidden.detach()


def test_quantized_experts_load_and_step_in_less_memory_than_pefts_own(wide: Path) -> None:
    free_gpu()
    reset_peak()
    model = load_model(wide, quantization="nf4", device="cuda", trainable=True)
    loading, held = peak_vram_gib(), torch.cuda.memory_allocated() / GIB
    weights = list(fused_weights(model))
    size = 2 * values_of(model) / GIB
    names = [weight.name for weight in weights]
    ours, _ = step(add_lora(model, rank=RANK, alpha=16, dropout=0.0, expert_rank=RANK))
    del model
    free_gpu()
    model = AutoModelForCausalLM.from_pretrained(
        wide, dtype=torch.bfloat16, device_map={"": torch.cuda.current_device()}
    ).requires_grad_(False)
    config = LoraConfig(r=RANK, lora_alpha=16, target_modules=["q_proj"], target_parameters=names)
    theirs, _ = step(get_peft_model(model, config))
    del model
    free_gpu()
    print(
        f"experts {size:.2f} GiB in 16 bit; nf4: model {held:.2f} GiB, loading {loading:.2f}, "
        f"step +{ours:.2f}; PEFT's own in bf16: step +{theirs:.2f}"
    )
    assert held < 0.5 * size
    assert ours < 0.85 * theirs


def test_the_gpu_computes_experts_as_the_cpu_does(base: Path) -> None:
    found = []
    ids = torch.arange(40)[None]
    for device in ("cpu", "cuda"):
        for quantization in ("nf4", "none"):
            model = load_model(base, quantization=quantization, device=device, dtype="bfloat16")  # type: ignore[arg-type]
            with torch.no_grad():
                logits = model(input_ids=ids.to(model.device), use_cache=False).logits
            found.append(logits.float().cpu())
    for cpu, gpu in zip(found[:2], found[2:], strict=True):
        apart = float((cpu - gpu).norm() / cpu.norm())
        print(f"relative difference of logits {apart:.1e}")
        assert apart < 0.05
