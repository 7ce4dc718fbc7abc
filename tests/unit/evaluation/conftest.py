"""A tiny base with an adapter that matters, a tokenizer, and held-out rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tasks.core.rows import row_schema
from tasks.core.rows.data_card import DataCard
from tasks.core.settings.config import View, check
from tasks.core.stage import Summary, Work
from tasks.core.text import prompt_templates
from tasks.evaluation import STAGE
from tasks.evaluation.model_pair import ModelPair

EOS = "<|endoftext|>"
VOCABULARY = 320
ROWS = 12


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "def add(a, b):\n    return a + b\n\n### End\n\n### Output:\n"
    tokenizer.train_from_iterator([text] * 9, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    folder = tmp_path_factory.mktemp("weights")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def adapter(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model = LlamaForCausalLM.from_pretrained(weights)
    lora = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "down_proj"])
    tuned = get_peft_model(model, lora)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pair(weights: Path, tokenizer_folder: Path, adapter: Path) -> ModelPair:
    return ModelPair.load(weights, tokenizer_folder, adapter, quantization="none", device="cpu")


@pytest.fixture(scope="session")
def inputs(
    weights: Path, tokenizer_folder: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "base.weights": weights,
        "base.tokenizer": tokenizer_folder,
        "train.adapter": adapter,
        **write_split(folder, tokenizer_folder, ROWS),
    }


def write_split(
    folder: Path, tokenizer_folder: Path, count: int, projects: int = 3
) -> dict[str, Path]:
    """Prompts of `count` small functions from some projects, and their tokens."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    prompts, tokens = [], []
    for i in range(count):
        prompt = prompt_templates.render("instruction", f"Add {i} to a.\n\ndef add{i}(a):")
        completion = prompt_templates.complete(
            "instruction", f"def add{i}(a):\n    return a + {i}\n"
        )
        prompts.append([f"row{i}", f"project{i % projects}", prompt, completion, "", ""])
        head, tail = tokenizer([prompt, completion])["input_ids"]
        tokens.append([f"row{i}", [*head, *tail, tokenizer.eos_token_id], len(head)])
    (folder / "test").mkdir()
    _write(folder / "prompts.parquet", prompts, row_schema.PROMPTS)
    _write(folder / "test" / "rows.parquet", tokens, row_schema.TOKENS)
    windows = [[i, [i], len(row[1])] for i, row in enumerate(tokens)]
    _write(folder / "test" / "windows.parquet", windows, row_schema.WINDOWS)
    (folder / "problems.jsonl").write_text("")
    DataCard().write(folder / "data_card.json")
    return {
        "prompt.test": folder / "prompts.parquet",
        "prompt.problems": folder / "problems.jsonl",
        "tokenize.test": folder / "test",
        "tokenize.data_card": folder / "data_card.json",
    }


def _write(path: Path, rows: list[list[Any]], schema: pa.Schema) -> None:
    records = [dict(zip(schema.names, row, strict=True)) for row in rows]
    pq.write_table(pa.Table.from_pylist(records, schema=schema), path)


SETTINGS: dict[str, Any] = {
    "quantization": "none",
    "max_new_tokens": 6,
    "samples": 2,
    "humaneval_problems": 0,
    "probe_problems": 0,
    "infilling_problems": 0,
    "completion_spans": 0,
    "generation_batch": 4,
    "gate": {"resamples": 200},
}

RunStage = Callable[..., tuple[Summary, Path]]


@pytest.fixture
def run_stage(inputs: dict[str, Path], tmp_path: Path) -> RunStage:
    """Run the stage on the tiny pair; `name` is its folder."""

    def run(
        name: str = "out",
        changed: dict[str, Path] | None = None,
        cache: Path | None = None,
        **settings: Any,
    ) -> tuple[Summary, Path]:
        work = Work(tmp_path / name, tmp_path / "scratch", cache=cache)
        work.out.mkdir()
        work.scratch.mkdir(exist_ok=True)
        config = check({"evaluate": SETTINGS | settings, "hardware": {"device": "cpu"}})
        view = View(config, STAGE.reads, STAGE.name)
        return STAGE.load_run()(view, inputs | (changed or {}), work), work.out

    return run


@pytest.fixture
def empty_split(tokenizer_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """Inputs of a held-out split without a row."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return write_split(folder, tokenizer_folder, 0)
