"""Running the stage on sources given as raw settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.core.settings.config import View, check
from tasks.core.stage import Summary, Work
from tasks.ingestion import STAGE

Ingested = tuple[Summary, list[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs of the stage write: out0, out1, ..."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def ingest(outputs: Path) -> Callable[..., Ingested]:
    """Run the stage; gives summary, rows, unreadable."""
    runs = iter(range(100))

    def run_on(*sources: dict[str, Any], workers: int = 1) -> Ingested:
        out = outputs / f"out{next(runs)}"
        scratch = out / "scratch"
        scratch.mkdir(parents=True)
        config = check({"ingest": {"sources": list(sources)}, "hardware": {"workers": workers}})
        view = View(config, STAGE.reads, STAGE.name)
        summary = STAGE.load_run()(view, {}, Work(out, scratch))
        rows = pq.read_table(out / "rows.parquet").to_pylist()
        return summary, rows, pq.read_table(out / "unreadable.parquet").to_pylist()

    return run_on


@pytest.fixture
def write_jsonl() -> Callable[..., Path]:
    """Write rows as JSONL."""

    def write(path: Path, *rows: dict[str, Any]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    """A good row; fields by keyword."""

    def make(number: int = 0, **fields: Any) -> dict[str, Any]:
        return {"instruction": f"do {number}", "input": "", "output": f"x = {number}", **fields}

    return make
