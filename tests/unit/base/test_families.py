"""Every family of models from the base to the merged model, on tiny random weights.

Each test measures one row of the table in docs/your-model.md, and compares it with the docs.
"""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from tasks.base.model_check import OTHER_MODEL
from tasks.base.reduced_model import build
from tasks.core.errors import PipelineError
from tasks.core.models.chunked_loss import token_losses
from tasks.core.models.loading import load_model
from tasks.core.models.packed_dataset import IGNORED, Window
from tasks.core.models.packed_forward import forward_hidden, loss_head, window_tensors
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.core.text.row_encoder import RowEncoder
from tasks.core.text.special_tokens import FIM, FIM_TOKENS, placeholder
from tasks.evaluation.generation.generate import generate
from tasks.evaluation.generation.own_generation import supports_batches
from tasks.merging.adapter import read_adapter
from tasks.merging.candidates import merged_tensor
from tasks.merging.expert_tensors import ExpertTensors
from tasks.merging.gguf.families.registry import FAMILIES as EXPORTED
from tasks.merging.strategies import registry
from tasks.training.fast.model.groups import parameter_order
from tasks.training.lora import add_lora, save_adapter
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.pick_stepper import pick_stepper
from tests.unit.base.families import FAMILIES, HELD_OUT, VOCABULARY, tiny_config
from tests.unit.base.test_run import go

DOCS = Path(__file__).resolve().parents[3] / "docs" / "your-model.md"
LENGTHS = (9, 1, 14)
CPU = torch.device("cpu")
load = partial(load_model, quantization="none", device="cpu", dtype="float32")


CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


@pytest.fixture
def weights(request: Any, saved_model: Path, tmp_path: Path) -> Path:
    """What the stage makes of a family's tiny model, for a tokenizer of a chat and code model."""
    folder = tmp_path / "model"
    ignore = shutil.ignore_patterns("*.safetensors", "config.json", "generation_config.json")
    shutil.copytree(saved_model, folder, ignore=ignore)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(FIM_TOKENS[0])})
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    config = tiny_config(request.param)
    build(config, "eager").save_pretrained(folder)
    return go(tmp_path, path=str(folder))[1] / "weights"


def window() -> Window:
    rng = np.random.default_rng(0)
    ids = rng.integers(1, VOCABULARY, sum(LENGTHS))
    labels = ids.copy()
    bounds = np.cumsum([0, *LENGTHS]).astype(np.int32)
    labels[bounds[:-1]] = IGNORED
    positions = np.concatenate([np.arange(n) for n in LENGTHS])
    return Window(ids, labels, positions, bounds, tuple(map(str, LENGTHS)))


@torch.no_grad()
def own_loss(model: Any) -> float:
    """Mean loss of the window's rows by the model's own forward pass, one row at a time."""
    rows = torch.from_numpy(window().input_ids).split(list(LENGTHS))
    losses = [
        cross_entropy(
            model(input_ids=row[None], use_cache=False).logits[0, :-1], row[1:], reduction="sum"
        )
        for row in rows
        if len(row) > 1
    ]
    return float(sum(losses)) / sum(n - 1 for n in LENGTHS)


def check_loss(model: Any) -> None:
    """The packed window's loss is that of the rows alone, by the model's own head."""
    tensors = window_tensors(window(), CPU)
    with torch.no_grad():
        hidden = forward_hidden(model, tensors)[tensors.predictors]
        losses, _ = token_losses(hidden, loss_head(model), tensors.targets)
    assert float(losses.mean()) == pytest.approx(own_loss(model), rel=1e-4)


def train_path(folder: Path) -> str:
    """The stepper that trains the model; its gradients are those of the rows alone."""
    model = load(folder, trainable=True)
    tuned = add_lora(model, rank=2, alpha=4, dropout=0.0, expert_rank=1)
    flat = FlatParameters(tuned, parameter_order)
    stepper = pick_stepper(
        *(tuned, flat),
        fast_path="auto",
        kept_layers=None,
        max_tokens=64,
    )
    flat.clear()
    tensors = window_tensors(window(), CPU)
    loss = stepper.run([tensors], tensors.trained_tokens, 0)
    assert float(loss) / tensors.trained_tokens == pytest.approx(own_loss(model), rel=1e-4)
    assert float(flat.gradient.abs().sum()) > 0
    return stepper.name


def check_generation(model: Any, folder: Path) -> None:
    """Greedy answers in a chat and for infilling are those without any cache or padding."""
    chat = {"messages": [{"role": "user", "content": "Hi"}], "date": "2026-01-01"}
    before, after, middle = map(placeholder, FIM)
    texts = [placeholder(json.dumps(chat)), f"{before}a = {after}\n{middle}"]
    prompts, wanted = RowEncoder(AutoTokenizer.from_pretrained(folder)).prompts(texts), []
    assert prompts[1][0] == 257
    for prompt in prompts:
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(5):
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
                ids.append(int(logits[0, -1].argmax()))
        wanted.append(tuple(ids[len(prompt) :]))
    found = generate(model, prompts, max_new_tokens=5, batch=2, pad_id=0, stops=())
    assert [answer.ids for answer in found] == wanted


def check_merge(folder: Path, tmp_path: Path) -> None:
    """The merged model has the logits of base + adapter."""
    tuned = add_lora(load(folder), rank=2, alpha=4, dropout=0.0, expert_rank=1)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    save_adapter(tuned, tmp_path / "adapter")
    adapter, traits = read_adapter(tmp_path / "adapter", folder), ModelTraits.read(folder)
    experts = ExpertTensors.of(folder, adapter.parameters, traits.experts)
    (strategy,) = registry.selected("base16", "none")
    merged = shutil.copytree(folder, tmp_path / "merged")
    changed = 0
    for file in merged.glob("*.safetensors"):
        before = load_file(file)
        after = {
            n: merged_tensor(n, t, strategy, adapter, experts, {}, traits, t.dtype)
            for n, t in before.items()
        }
        changed += sum(not torch.equal(after[name], before[name]) for name in before)
        file.unlink()  # a hard link
        save_file(after, file, metadata={"format": "pt"})
    assert changed == len(adapter.updates) + len(experts.names)
    ids = torch.tensor([[5, 9, 7, 3, 8]])
    with torch.no_grad():
        expected = tuned.eval()(input_ids=ids, use_cache=False).logits
        found = load(merged)(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def documented(family: str) -> str:
    """The row of a family in the docs."""
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith(f"| {family} |")]
    return rows[0] if rows else ""


REJECTED = {"bert": "is not causal", "gpt2": "has 0 linear layers that LoRA can train"}
SUPPORTED = [name for name in FAMILIES if name not in REJECTED]


@pytest.mark.parametrize("weights", SUPPORTED, indirect=True)
def test_a_family_works_from_base_to_merge_as_documented(weights: Path, tmp_path: Path) -> None:
    model = load(weights)
    check_loss(model)
    path = train_path(weights)
    check_generation(model, weights.parent / "tokenizer")
    batches = supports_batches(model)
    check_merge(weights, tmp_path)
    checks = json.loads((weights.parent / "checks.json").read_text())
    assert (checks["plain_reason"] == "") == (path == "fast")
    family = json.loads((weights / "config.json").read_text())["model_type"]
    cells = (
        family,
        "one by one" if checks["isolation"] == "rows" else "packed",
        path,
        "in batches" if batches else "one by one",
        f"all but {', '.join(checks['unreached'])}" if checks["unreached"] else "all",
        "4 bit, LoRA" if checks["experts"] else "none",
    )
    cells += tuple("yes" if checks[name] else "no" for name in ("chat", "infilling"))
    cells = (*cells, "yes" if family in {known.model_type for known in EXPORTED} else "no")
    assert documented(family) == f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("weights", HELD_OUT, indirect=True)
def test_a_type_that_no_code_names_works_from_base_to_merge(weights: Path, tmp_path: Path) -> None:
    check_loss(load(weights))
    assert train_path(weights) == "plain"
    check_merge(weights, tmp_path)
    checks = json.loads((weights.parent / "checks.json").read_text())
    assert (
        checks["plain_reason"] == f"there is no fast path for models of type {checks['model_type']}"
    )


@pytest.mark.parametrize("family", REJECTED)
def test_a_model_that_cannot_be_trained_is_rejected_before_the_training(
    family: str, saved_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved_model, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    build(tiny_config(family), "eager").save_pretrained(folder)
    with pytest.raises(PipelineError, match=REJECTED[family]) as error:
        go(tmp_path, path=str(folder))
    assert error.value.remedy == OTHER_MODEL


def test_traits_survive_writing_and_reading(tmp_path: Path) -> None:
    traits = ModelTraits(isolation="rows", lora=("a", "b"), tensor_prefix="x.", hub="a/b@c")
    traits.write(tmp_path)
    assert ModelTraits.read(tmp_path) == traits
    assert dataclasses.asdict(ModelTraits.read(tmp_path / "none")) == dataclasses.asdict(
        ModelTraits()
    )


def test_a_composite_checkpoint_trains_its_text_model_and_keeps_the_rest(
    saved_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved_model, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    vision = {"vision_tower.layers.0.q_proj.weight": torch.ones(3, 3)}
    renamed = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
    save_file(renamed | vision, folder / "model.safetensors", metadata={"format": "pt"})
    weights = go(tmp_path, path=str(folder))[1] / "weights"
    assert ModelTraits.read(weights).tensor_prefix == "language_model."
    assert torch.equal(load(weights).lm_head.weight, tensors["lm_head.weight"])
    check_merge(weights, tmp_path)
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert torch.equal(merged["vision_tower.layers.0.q_proj.weight"], torch.ones(3, 3))


def test_a_checkpoint_without_a_layer_is_rejected(saved_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved_model, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PipelineError, match=r"stores 1 of 14 linear layers under other names"):
        go(tmp_path, path=str(folder))


def test_tokens_outside_of_the_embedding_are_rejected(saved_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved_model, tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(
        PipelineError, match=r"1 tokens outside of the 257 rows .*'<extra>' \(257\)"
    ):
        go(tmp_path, path=str(folder))
