"""What Prefect shows for a stage follows our store alone."""

import json
import shutil
from pathlib import Path

import pytest

from flows.orchestration.stage_task import PlannedHits, StageTask, prefect_task, result_key
from tasks.core.cache.decision import Selection
from tasks.core.cache.execute import RunContext
from tasks.core.cache.manifest import Manifest
from tasks.core.settings.config import check
from tests.unit.core.conftest import load_toy

pytestmark = pytest.mark.slow


@pytest.fixture
def toy(tmp_path, monkeypatch):
    return load_toy(tmp_path, monkeypatch)


def run_flow(pipeline, selection=None):
    """Run the toy stages as Prefect tasks; {stage: name of its final state}."""
    from prefect import flow

    states = {}
    settings = check({"hardware": {"device": "cpu"}})

    @flow(name="toy", persist_result=False)
    def toy_flow():
        planner = pipeline.planner(settings, selection or Selection())
        planner.plan()
        for name in planner.selected:
            plan = planner.plan_stage(name)
            context = RunContext(settings, pipeline.store, planner.artifacts)
            task = StageTask(plan, context).task()
            state = task({}, return_state=True)
            states[name] = state.name
            planner.add_artifact(Manifest.from_plain(state.result()))

    toy_flow()
    return states


def test_prefect_shows_cached_exactly_for_what_the_store_holds(prefect_server, toy, tmp_path):
    pipeline = toy.Pipeline(tmp_path / "artifacts")
    assert run_flow(pipeline) == dict.fromkeys(["read", "sort", "join"], "Completed")
    assert run_flow(pipeline) == dict.fromkeys(["read", "sort", "join"], "Cached")

    shutil.rmtree(tmp_path / "artifacts" / "sort")
    assert run_flow(pipeline) == {"read": "Cached", "sort": "Completed", "join": "Cached"}

    results = [p for p in (tmp_path / "artifacts" / ".prefect").rglob("*") if p.is_file()]
    assert results
    assert all("stage" in json.loads(p.read_bytes()) for p in results)  # JSON, no pickle
    shutil.rmtree(tmp_path / "artifacts" / ".prefect")  # Prefect's own copies are not needed
    assert run_flow(pipeline) == dict.fromkeys(["read", "sort", "join"], "Cached")

    forced = run_flow(pipeline, Selection(force=("sort",)))
    assert forced == {"read": "Cached", "sort": "Completed", "join": "Cached"}


def test_artifact_made_without_prefect_is_cached_too(prefect_server, toy, tmp_path):
    pipeline = toy.Pipeline(tmp_path / "artifacts")
    pipeline.run()
    assert run_flow(pipeline) == dict.fromkeys(["read", "sort", "join"], "Cached")


def test_hit_in_a_stage_folder_that_is_a_link_is_cached(prefect_server, toy, tmp_path):
    pipeline = toy.Pipeline(tmp_path / "artifacts")
    pipeline.run()
    (tmp_path / "artifacts" / "sort").rename(tmp_path / "elsewhere")
    (tmp_path / "artifacts" / "sort").symlink_to(tmp_path / "elsewhere")
    assert run_flow(pipeline) == dict.fromkeys(["read", "sort", "join"], "Cached")


def test_key_storage_answers_in_the_form_that_prefect_reads(toy, tmp_path):
    from prefect.results import ResultRecordMetadata

    pipeline = toy.Pipeline(tmp_path / "artifacts")
    (planned, *_) = pipeline.plan()
    key = result_key("read", planned.key)
    with pytest.raises(FileNotFoundError):
        PlannedHits.of(planned, pipeline.store).read_path(key)
    pipeline.run()
    storage = PlannedHits.of(pipeline.plan()[0], pipeline.store)
    answer = ResultRecordMetadata.load_bytes(storage.read_path(key))
    assert answer.serializer.type == "json"
    assert Manifest.from_plain(answer.serializer.loads(Path(answer.storage_key).read_bytes()))
    with pytest.raises(FileNotFoundError):
        storage.read_path(result_key("read", "0" * 64))


def test_prefect_tries_no_stage_again_for_a_lack_of_memory_would_stay(toy, tmp_path):
    pipeline = toy.Pipeline(tmp_path / "artifacts")
    plan = pipeline.planner().plan_stage("read")
    assert prefect_task(plan, pipeline.store, lambda inputs: {}).retries == 0
