"""The batches of a data stage on Ray and on Dask, by Prefect's task runners."""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.orchestration import task_runners
from tasks import filtering
from tasks.core.errors import PipelineError
from tasks.core.rows import row_schema
from tasks.core.settings.config import View, check
from tasks.core.stage import RunBatches, Work
from tasks.filtering import run as filtering_run
from tasks.ingestion.executable import EXECUTABLE
from tests.conftest import ingested_row

RUNNERS = ("ray", "dask")


def row(number: int) -> dict[str, Any]:
    return ingested_row(
        number,
        instruction=f"Work out thing number {number % 70}.",
        output=f"def f(x):\n    return x + {number % 80}" + " + x" * (number % 9),
        kind="instruction",
    )


def digests(folder: Path, run_batches: RunBatches) -> dict[str, str]:
    """Of all files that filter writes, with two workers and batches of 16 rows."""
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir()
    inputs = {"ingest.rows": folder / "rows", "ingest.executable": folder / "executable"}
    rows = pa.Table.from_pylist([row(n) for n in range(100)], schema=row_schema.ROWS)
    pq.write_table(rows, inputs["ingest.rows"])
    pq.write_table(EXECUTABLE.empty_table(), inputs["ingest.executable"])
    view = View(check({"hardware": {"workers": 2}}), filtering.STAGE.reads, "filter")
    filtering_run.run(view, inputs, Work(out, scratch, run_batches=run_batches))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir())}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNERS)
def test_a_cluster_of_two_processes_gives_the_digests_of_this_process(
    name, tmp_path, prefect_server, monkeypatch
):
    if importlib.util.find_spec(task_runners.PACKAGES[name]) is None:
        pytest.skip(f"the extra {name} is not installed: pip install -e '.[{name}]'")
    monkeypatch.setattr(filtering_run, "BATCH_ROWS", 16)
    wanted = digests(tmp_path / "here", lambda function, batches, workers: map(function, batches))
    monkeypatch.setattr(filtering_run, "ROWS_FOR_PROCESSES", 1)
    places: list[str] = []
    runner = task_runners._runner

    def watched(name: str, cluster: str | None, workers: int) -> Any:
        places.append(f"{name} {workers}")
        return runner(name, cluster, workers)

    monkeypatch.setattr(task_runners, "_runner", watched)
    on_cluster = task_runners.run_batches(check({"hardware": {"task_runner": name}}).hardware)
    assert digests(tmp_path / name, on_cluster) == wanted
    assert places == [f"{name} 2"]


@pytest.mark.parametrize("name", RUNNERS)
def test_a_runner_that_is_not_installed_is_an_error_that_names_the_extra(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(PipelineError, match=f"{name}, and prefect_{name} is not installed"):
        task_runners.run_batches(check({"hardware": {"task_runner": name}}).hardware)
