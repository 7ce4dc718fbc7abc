"""A tiny base, a random adapter on it and everything else that the stage reads."""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, StableLmConfig

from tasks.core.rows import row_schema
from tasks.core.rows.data_card import DataCard
from tasks.core.settings.config import View, check
from tasks.core.stage import Summary, Work
from tasks.merging import STAGE

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,  # wide, so that predictions differ from place to place
    "bos_token_id": 0,
    "eos_token_id": 0,
}
TARGETS = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]


def make_base(folder: Path, kind: str = "llama", tied: bool = False) -> None:
    torch.manual_seed(0)
    make = LlamaConfig if kind == "llama" else StableLmConfig
    config = make(**SHAPE, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)


def make_adapter(weights: Path, folder: Path, **options) -> None:
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    options = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": TARGETS,
        "task_type": "CAUSAL_LM",
    } | options
    model = get_peft_model(base, LoraConfig(**options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
        if "magnitude" in name:
            parameter.data *= 1.1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)


def reference(weights: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """PEFT's own merge in 32 bit."""
    base = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    return PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()


def write_windows(folder: Path, rows: int = 12, tokens: int = 24) -> None:
    folder.mkdir(exist_ok=True)
    draw = torch.Generator().manual_seed(5)
    table = [
        {
            "row_id": f"{i:032x}",
            "input_ids": torch.randint(1, 96, (tokens,), generator=draw).tolist(),
            "prompt_tokens": 4,
        }
        for i in range(rows)
    ]
    plan = [{"window": i, "rows": [i], "tokens": tokens} for i in range(rows)]
    pq.write_table(pa.Table.from_pylist(table, schema=row_schema.TOKENS), folder / "rows.parquet")
    pq.write_table(
        pa.Table.from_pylist(plan, schema=row_schema.WINDOWS), folder / "windows.parquet"
    )


GATE = {
    "verdict": "improved",
    "reasons": ["Loss on held-out is better: 2.000 → 1.500."],
    "comparisons": [
        {
            "name": "loss",
            "on": "held-out",
            "base": 2.0,
            "tuned": 1.5,
            "difference": -0.5,
            "low": -0.6,
            "high": -0.4,
            "p_adjusted": 0.0001,
            "units": 12,
            "unit": "projects",
            "note": "",
            "shown": {
                "base": "2.000",
                "tuned": "1.500",
                "difference": "−0.500 nats",
                "interval": "−0.600 to −0.400 nats",
            },
        }
    ],
}


@dataclass
class Stage:
    """The stage's inputs in a folder, and its run."""

    root: Path
    steps: dict[str, Any] = field(
        default_factory=lambda: {"step": 2, "tokens": 64, "validation": []}
    )
    data: DataCard = field(default_factory=DataCard)

    @property
    def inputs(self) -> dict[str, Path]:
        return {
            "train.adapter": self.root / "adapter",
            "train.steps": self.root / "steps.json",
            "base.weights": self.root / "weights",
            "base.tokenizer": self.root / "tokenizer",
            "base.licence": self.root / "licence.json",
            "evaluate.gate": self.root / "gate.json",
            "evaluate.metrics": self.root / "metrics.json",
            "tokenize.test": self.root / "test",
            "tokenize.data_card": self._data_card(),
        }

    def _data_card(self) -> Path:
        path = self.root / "data_card.json"
        self.data.write(path)
        return path

    @property
    def model(self) -> Path:
        return self.root / "out" / "model"

    def write(self, name: str, content: object) -> None:
        (self.root / name).write_text(json.dumps(content), encoding="utf-8")

    def run(self, out: str = "out", scratch: str = "", **settings: object) -> Summary:
        # a random model agrees with its rounded self less than a trained one
        loose = {"tolerance_percent": 20.0, "min_agreement": 0.8, "sample_tokens": 200}
        config = check({"merge": loose | settings})
        (self.root / out).mkdir()
        work = Work(self.root / out, self.root / (scratch or f"{out}-scratch"))
        self.write("steps.json", self.steps)
        return STAGE.load_run()(View(config, STAGE.reads, STAGE.name), self.inputs, work)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """All inputs of the stage: tiny Llama, LoRA, improved."""
    from tests.unit.merging.test_gguf_export import make_tokenizer  # which imports this file

    made = Stage(tmp_path)
    make_base(tmp_path / "weights")
    make_adapter(tmp_path / "weights", tmp_path / "adapter")
    write_windows(tmp_path / "test")
    (tmp_path / "tokenizer").mkdir()
    make_tokenizer(tmp_path / "tokenizer")
    made.write("tokenizer/model_limits.json", {"max_tokens": 128})
    made.write("gate.json", GATE)
    held_out = {"rows": 12, "projects": 12, "tokens": 240}
    made.write("metrics.json", {"rows": {"held-out": held_out}})
    files = {"LICENSE": "Do what you like.\n", "NOTICE.txt": "Made by \udca9 test.\n"}
    made.write("licence.json", {"base": f"tiny/llama@{'0' * 40}", "licence": "MIT", "files": files})
    return made
