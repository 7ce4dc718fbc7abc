"""Full disks, unwritable folders, jumping clocks, manifests from the future, many at once."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tasks.core import manifest as manifests
from tasks.core import runs, upkeep
from tasks.core.config import check
from tasks.core.errors import PipelineError, StageError
from tasks.core.memo import Memo
from tasks.core.plan import Planner
from tasks.core.runs import RunRecord
from tasks.core.store import MEMORY, TRASH

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


class Clock(datetime):
    """A clock that a test sets."""

    shown = datetime(2026, 1, 2, tzinfo=UTC)

    @classmethod
    def now(cls, tz=None):
        return cls.shown


def test_run_after_the_clock_was_set_back_is_still_the_last(pipeline, monkeypatch):
    monkeypatch.setattr(runs, "datetime", Clock)
    root = pipeline.store.root
    made = []
    for day in (20, 3, 4, 21):
        monkeypatch.setattr(Clock, "shown", datetime(2026, 1, day, tzinfo=UTC))
        made.append(runs.new_id(root))
        RunRecord(made[-1], "p").write(root)
        assert runs.read(root, "-1").id == made[-1]
    assert runs.ids(root) == made


@pytest.mark.parametrize("jump_days", [-400, 400])
def test_artifacts_from_before_a_jump_of_the_clock_are_hits(pipeline, jump_days):
    pipeline.run()
    for path in pipeline.store.root.rglob("*"):
        past = path.stat().st_mtime - jump_days * 86_400
        os.utime(path, (past, past))
    assert pipeline.verdicts() == ["HIT", "HIT", "HIT"]
    assert pipeline.run() == []


def test_truncated_file_is_named_and_only_its_stage_runs_again(pipeline):
    pipeline.run()
    folder = pipeline.store.folder("sort", pipeline.plan()[1].manifest.key)
    os.truncate(folder / "sorted.txt", 3)
    assert [str(cause) for cause in pipeline.plan()[1].causes] == ["edited sorted.txt"]
    assert pipeline.run() == ["sort"]


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


@pytest.mark.skipif(not AS_ROOT, reason="mounting a read-only tmpfs needs root")
def test_read_only_artifacts_folder_can_be_planned_and_a_run_says_what_is_wrong(toy, tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        writing = toy.Pipeline(mount / "artifacts")
        with writing.memo:  # open files would keep the mount writable
            writing.run()
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        pipeline = toy.Pipeline(mount / "artifacts")
        assert pipeline.verdicts() == ["HIT", "HIT", "HIT"]
        toy.SOURCE.write_text("kiwi")
        with pytest.raises(PipelineError, match="can't be written"):
            pipeline.run()
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


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

    def test_pinned_artifact_stays_with_all_that_it_rests_on(self, pipeline, toy):
        pipeline.run()
        key = self.keys(pipeline)["join"]
        toy.SOURCE.write_text("kiwi")
        pipeline.run()
        garbage = upkeep.find_garbage(pipeline.store.root, 0, 0, frozenset({key}))
        upkeep.collect(pipeline.store.root, garbage)
        assert {p.parent.name for p in garbage.folders} == {"read", "sort", "join"}
        toy.SOURCE.write_text("pear fig apple")
        assert pipeline.verdicts() == ["HIT", "HIT", "HIT"]

    def test_of_two_artifacts_with_the_same_output_one_is_enough(self, pipeline, toy):
        pipeline.run()
        toy.SOURCE.write_text("apple pear fig")  # sorted, the words are the same
        pipeline.run()
        key = self.keys(pipeline)["join"]
        garbage = upkeep.find_garbage(pipeline.store.root, 0, 0, frozenset({key}))
        assert sorted(p.parent.name for p in garbage.folders) == ["read", "sort"]

    def test_what_a_training_went_on_from_stays(self, pipeline):
        pipeline.run()
        plans = {p.stage.name: p for p in pipeline.plan()}
        join = plans["join"].manifest
        parts = {
            **join.parts,
            "inputs": {"champion:sort.sorted": join.parts["inputs"]["sort.sorted"]},
        }
        replace(join, parts=parts).write(pipeline.store.folder("join", join.key))
        garbage = upkeep.find_garbage(pipeline.store.root, 0, 0, frozenset({join.key}))
        assert garbage.folders == ()

    def test_what_is_remembered_about_an_output_goes_with_it(self, pipeline):
        pipeline.run()
        digest = pipeline.plan()[1].manifest.outputs["sorted"]
        memory = pipeline.store.root / MEMORY / "join"
        memory.mkdir(parents=True)
        known, unknown = memory / f"{digest[:12]}.sqlite", memory / f"{'0' * 12}.sqlite"
        known.write_text("kept")
        unknown.write_text("gone")
        key = self.keys(pipeline)["sort"]
        garbage = upkeep.find_garbage(pipeline.store.root, 0, 0, frozenset({key}))
        assert unknown in garbage.leftovers
        upkeep.collect(pipeline.store.root, garbage)
        assert (known.exists(), unknown.exists()) == (True, False)

    def test_leftovers_of_killed_runs_go(self, pipeline):
        pipeline.run()
        work = pipeline.store.root / ".work" / f"train-{'a' * 12}" / "scratch"
        work.mkdir(parents=True)
        (work / "checkpoint").write_text("step 7")
        record = pipeline.store.root / ".runs" / "20260101T000000-0001-1.tmp"
        record.parent.mkdir()
        record.write_text("{")
        garbage = upkeep.find_garbage(pipeline.store.root, 5, 5, frozenset())
        upkeep.collect(pipeline.store.root, garbage)
        assert set(garbage.leftovers) == {work.parent, record}
        assert not work.exists()
        assert not record.exists()

    def test_collection_killed_half_way_is_finished_by_the_next(self, pipeline):
        pipeline.run()
        folder = next((pipeline.store.root / "join").iterdir())
        trash = pipeline.store.root / TRASH
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
