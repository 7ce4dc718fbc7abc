"""Full disks, unwritable folders, jumping clocks, manifests from the future, many at once."""

import json
import os
import shutil
import subprocess
import time

import pytest

from tasks.core import manifest as manifests
from tasks.core import upkeep
from tasks.core.config import check
from tasks.core.errors import PipelineError, StageError
from tasks.core.memo import Memo
from tasks.core.plan import Planner

AS_ROOT = os.geteuid() == 0


def test_manifest_of_a_newer_version_is_named_and_its_stage_runs_again(pipeline):
    pipeline.run()
    folder = pipeline.store.folder("sort", pipeline.plan()[1].manifest.key)
    raw = json.loads((folder / manifests.NAME).read_text())
    (folder / manifests.NAME).write_text(json.dumps({**raw, "version": 99}))
    cause = pipeline.plan()[1].causes[0]
    assert cause.kind == "unreadable"
    assert "version 99" in cause.what
    assert pipeline.run() == ["sort"]


def test_clock_that_jumps_back_makes_nothing_stale_or_new(pipeline, monkeypatch):
    pipeline.run()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert pipeline.verdicts() == ["HIT", "HIT", "HIT"]


def test_artifact_copied_to_another_disk_with_new_times_is_still_whole(pipeline):
    pipeline.run()
    folder = pipeline.store.folder("sort", pipeline.plan()[1].manifest.key)
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert pipeline.verdicts() == ["HIT", "HIT", "HIT"]


@pytest.mark.skipif(not AS_ROOT, reason="mounting a small tmpfs needs root")
def test_full_disk_is_named_and_after_making_room_the_run_goes_on(toy, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        filler = small / "filler"
        filler.write_bytes(b"x" * 120_000)
        pipeline = toy.Pipeline(small / "artifacts")
        toy.SOURCE.write_text("word " * 40_000)
        with pytest.raises((StageError, PipelineError), match="No space left"):
            pipeline.run()
        filler.unlink()
        toy.SOURCE.write_text("few words")
        assert pipeline.run() == ["read", "sort", "join"]
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_unwritable_artifacts_folder_is_a_clear_error(toy, tmp_path):
    blocked = tmp_path / "file-in-the-way"
    blocked.write_text("")
    pipeline = toy.Pipeline(blocked / "artifacts")
    with pytest.raises(PipelineError, match="can't be written") as error:
        pipeline.run()
    assert "FINETUNE_HOME" in error.value.remedy


class TestAccept:
    """A change of code that its user declares harmless."""

    @pytest.fixture
    def changed(self, pipeline, monkeypatch):
        """The pipeline after a run and a change in the code of `sort`."""
        pipeline.run()
        from tasks.core import keys

        real = keys.closure

        def closure(reference, memo):
            if reference == "toy:sort":
                return {"tasks.sorting": {"order": "changed"}}
            return real(reference, memo)

        monkeypatch.setattr(keys, "closure", closure)
        return pipeline

    def test_accepted_artifact_is_a_hit_and_says_what_was_waved_through(self, changed):
        assert changed.verdicts()[1] == "RUN"
        manifest = upkeep.accept(changed.store, changed.plan()[1])
        assert changed.verdicts() == ["HIT", "HIT", "HIT"]
        assert manifest.made["accepted"]["causes"] == ["code tasks/sorting.py (order)"]

    def test_undo_makes_the_stage_run_again(self, changed):
        upkeep.accept(changed.store, changed.plan()[1])
        upkeep.undo_accept(changed.store, changed.plan()[1])
        assert changed.run() == ["sort"]

    def test_change_of_data_is_not_a_matter_of_opinion(self, pipeline, toy):
        pipeline.run()
        toy.SOURCE.write_text("other")
        with pytest.raises(PipelineError, match=r"runs for data"):
            upkeep.accept(pipeline.store, pipeline.plan()[0])


class TestGarbage:
    """What `finetune gc` finds."""

    def keys(self, pipeline):
        return {plan.stage.name: plan.key for plan in pipeline.plan()}

    def test_last_run_keeps_all_it_rests_on_and_older_artifacts_go(self, pipeline, toy):
        from tasks.core.runs import RunRecord

        pipeline.run()
        RunRecord("20260101T000000-1", "p", (), self.keys(pipeline)).write(pipeline.store.root)
        toy.SOURCE.write_text("kiwi")
        pipeline.run()
        new = self.keys(pipeline)
        RunRecord("20260102T000000-1", "p", (), new).write(pipeline.store.root)
        garbage = upkeep.find_garbage(pipeline.store.root, 1, 0, frozenset())
        assert {p.parent.name for p in garbage.folders} == {"read", "sort", "join"}
        upkeep.collect(pipeline.store.root, garbage)
        assert pipeline.verdicts() == ["HIT", "HIT", "HIT"]

    def test_pinned_artifact_stays(self, pipeline):
        pipeline.run()
        key = self.keys(pipeline)["join"]
        garbage = upkeep.find_garbage(pipeline.store.root, 0, 0, frozenset({key}))
        assert {p.parent.name for p in garbage.folders} == {"read", "sort"}

    def test_collection_killed_half_way_is_finished_by_the_next(self, pipeline):
        pipeline.run()
        folder = next((pipeline.store.root / "join").iterdir())
        trash = pipeline.store.root / upkeep.TRASH
        trash.mkdir()
        shutil.move(folder, trash / "join-half")
        garbage = upkeep.find_garbage(pipeline.store.root, 0, 0, frozenset())
        upkeep.collect(pipeline.store.root, garbage)
        assert list(trash.iterdir()) == []
        assert pipeline.verdicts()[2] == "RUN"


def test_plan_stays_the_same_for_two_planners_at_once(pipeline, toy):
    pipeline.run()
    with Memo(None) as memo:
        settings = check({"hardware": {"device": "cpu"}})
        from tasks.core.plan import Selection

        other = Planner(toy.STAGES, settings, pipeline.store, memo, Selection())
        assert [p.key for p in other.plan()] == [p.key for p in pipeline.plan()]
