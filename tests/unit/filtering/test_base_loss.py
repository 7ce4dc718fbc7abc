"""The base model's own loss on each row: a column, a rule, and the rows that it predicts worst."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from flows.commands.show.filtered import funnel_lines
from tasks.core.cache.code_digest import closure
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.rows import row_schema
from tasks.core.settings.config import View, check
from tasks.core.stage import Summary, Work
from tasks.filtering import STAGE, base_loss
from tests.conftest import ingested_row as row

ROWS = [
    row(1, output="def add(a, b):\n    return a + b\n"),
    row(2, instruction="Write a haiku.", output="def water():\n    return 'an old pond'\n"),
]
Measured = tuple[Summary, list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Callable[..., Measured]:
    """Run the stage with base_loss; gives summary, measurements, rejected, funnel."""
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(tiny_model, tokenizer)
    (tokenizer / "model_limits.json").write_text('{"max_tokens": 64}')

    def run_on(rows: list[dict[str, Any]], **settings: Any) -> Measured:
        out, scratch, given = (tmp_path / n for n in ("out", "scratch", "rows.parquet"))
        out.mkdir(exist_ok=True)
        scratch.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=row_schema.ROWS), given)
        executable = tmp_path / "executable.parquet"
        pq.write_table(pa.table({"row_id": pa.array([], pa.string())}), executable)
        config = check({"filter": {"base_loss": True, **settings}, "hardware": {"device": "cpu"}})
        stage = STAGE.with_options(config)
        inputs = {
            "ingest.rows": given,
            "ingest.executable": executable,
            "base.weights": tiny_model,
            "base.tokenizer": tokenizer,
        }
        assert set(stage.inputs) == set(inputs)
        work = Work(out, scratch, shards=tmp_path / "shards" / "filter", code="c")
        summary = stage.load_run()(View(config, stage.reads, stage.name), inputs, work)
        return (
            summary,
            pq.read_table(out / "measurements.parquet").to_pylist(),
            pq.read_table(out / "rejected.parquet").to_pylist(),
            json.loads((out / "funnel.json").read_text()),
        )

    return run_on


def test_the_loss_is_that_of_the_output_given_what_is_before_it(run, tiny_model: Path) -> None:
    rows = [*ROWS, row(3, kind="file", instruction="", output="x = 1\n" * 300)]
    _, measured, _, _ = run(rows)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    given = tokenizer(f"{ROWS[1]['instruction']}\n")["input_ids"]
    output = tokenizer(ROWS[1]["output"])["input_ids"]
    ids = torch.tensor([[*given, *output]])
    labels = ids.clone()
    labels[:, : len(given)] = -100
    with torch.inference_mode():
        expected = float(model(ids, labels=labels).loss)
    assert measured[1]["base_loss"] == pytest.approx(expected, abs=0.05)  # 4 bit
    assert all(entry["base_loss"] > 3 for entry in measured)  # of random weights, about ln 512


def test_rows_above_the_threshold_are_rejected_and_named(run) -> None:
    summary, measured, rejected, funnel = run(ROWS, max_base_loss=100.0)
    assert not rejected
    worst = max(measured, key=lambda entry: entry["base_loss"])
    assert funnel["base_loss"]["worst"][0]["row_id"] == worst["row_id"]
    assert "loss of the base: median" in summary.line
    assert any(worst["row_id"] in line for line in funnel_lines(funnel))
    between = sum(entry["base_loss"] for entry in measured) / 2
    _, _, (found,), _ = run(ROWS, max_base_loss=between)
    assert found["row_id"] == worst["row_id"]
    assert found["reasons"][0]["rule"] == "base_loss"


def test_only_new_rows_are_measured_and_the_result_is_the_same(run, monkeypatch) -> None:
    _, before, _, _ = run(ROWS)
    lost: list[int] = []
    monkeypatch.setattr(base_loss._Base, "_loss", lambda *_: lost.append(1))
    _, after, _, _ = run(ROWS, max_function_lines=20)
    assert (after, lost) == (before, [])


def test_without_the_setting_no_model_code_is_in_the_key() -> None:
    with DigestCache(None) as digests:
        modules = closure(STAGE.with_options(check({})).run, digests)
    assert "tasks.filtering.base_loss" not in modules
    assert not any(name.startswith("tasks.core.models") for name in modules)
