"""A small real training stage on the GPU: a 4-bit Llama of eight layers that learns to count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.core.rows import row_schema
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.training import STAGE
from tasks.training.report.metrics_log import read_metrics

VOCABULARY = 256
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
SETTINGS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "warmup_steps": 5,
    "max_steps": 40,
    "batch_tokens": 4096,
    "log_every": 1,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def write_split(folder: Path, windows: int, seed: int) -> None:
    """Rows that count upwards by their own step, packed into windows of about 2,048 tokens."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows: list[list[int]] = []
    plan: list[list[int]] = []
    sizes: list[int] = []
    for _ in range(windows):
        plan.append([])
        sizes.append(0)
        while sizes[-1] < 2048 - 300:
            length, start, step = rng.integers(40, 300), rng.integers(256), rng.integers(1, 6)
            plan[-1].append(len(rows))
            rows.append(((start + step * np.arange(length)) % VOCABULARY).tolist())
            sizes[-1] += int(length)
    names = [f"r{i}" for i in range(len(rows))]
    table = pa.table([names, rows, [2] * len(rows)], schema=row_schema.TOKENS)
    pq.write_table(table, folder / "rows.parquet", row_group_size=256)
    table = pa.table([range(windows), plan, sizes], schema=row_schema.WINDOWS)
    pq.write_table(table, folder / "windows.parquet")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).to(torch.bfloat16)
    with torch.no_grad():
        model.lm_head.weight.mul_(4)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_split(folder / "train", 120, seed=0)
    write_split(folder / "validation", 4, seed=1)
    return folder


@pytest.fixture
def train(
    tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Work]:
    """Run the stage on the GPU; the same `name` goes on in the same folders."""
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))

    def run(name: str = "a", hardware: dict[str, Any] | None = None, **settings: Any) -> Work:
        inputs = {
            "tokenize.train": data / "train",
            "tokenize.validation": data / "validation",
            "base.weights": base,
            "base.tokenizer": base,
        }
        work = Work(tmp_path / name / "out", tmp_path / name / "scratch")
        work.out.mkdir(parents=True, exist_ok=True)
        work.scratch.mkdir(parents=True, exist_ok=True)
        config = check({"train": SETTINGS | settings, "hardware": hardware or {}})
        STAGE.load_run()(View(config, STAGE.reads, STAGE.name), inputs, work)
        return work

    return run


def curve(work: Work) -> list[float]:
    """Training losses by step."""
    return [x["loss"] for x in read_metrics(work.out / "metrics.jsonl") if "loss" in x]
