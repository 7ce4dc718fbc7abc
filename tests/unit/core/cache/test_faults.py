"""Full disks, unwritable folders, jumping clocks, manifests from the future, many at once."""

import errno
import json
import os
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime

import pytest

from tasks.core.artifacts import maintenance, runs
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache import manifest as manifests
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.plan import Planner
from tasks.core.errors import PipelineError
from tasks.core.settings.config import check
from tasks.core.stage import Summary
from tasks.core.system.disk_space import no_space


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
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]
    assert pipeline.run() == []


def test_truncated_file_is_named_and_only_its_stage_runs_again(pipeline):
    pipeline.run()
    folder = pipeline.store.folder("sort", pipeline.plan()[1].manifest.key)
    os.truncate(folder / "sorted.txt", 3)
    assert [str(cause) for cause in pipeline.plan()[1].causes] == ["edited sorted.txt"]
    assert pipeline.run() == ["sort"]


def test_flipped_bit_under_the_old_time_of_change_is_seen_by_the_next_run(pipeline):
    pipeline.run()
    path = pipeline.store.folder("sort", pipeline.plan()[1].manifest.key) / "sorted.txt"
    stat = path.stat()
    path.write_bytes(b"X" + path.read_bytes()[1:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = [problem for _, problem in maintenance.verify(pipeline.store, deep=True) if problem]
    assert found == [("edited", "sorted.txt")]
    assert pipeline.run() == ["sort"]


@pytest.mark.parametrize("name", ["b.txt", "deeper/b.txt"])
def test_file_that_came_to_an_outputs_folder_is_an_edit_and_beside_it_is_none(
    pipeline, toy, monkeypatch, name
):
    def sort(config, inputs, work):
        toy.RUNS.append("sort")
        (work.out / "sorted").mkdir()
        (work.out / "sorted" / "a.txt").write_text("a")
        return Summary("sorted")

    def join(config, inputs, work):
        (work.out / "line.txt").write_text("a")
        return Summary("joined")

    monkeypatch.setattr(toy, "sort", sort)
    monkeypatch.setattr(toy, "join", join)
    pipeline.run()
    folder = pipeline.store.folder("sort", pipeline.plan()[1].manifest.key)
    (folder / "notes.txt").write_text("mine")
    (folder / "sorted" / ".hidden").write_text("mine")
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]
    (folder / "sorted" / name).parent.mkdir(exist_ok=True)
    (folder / "sorted" / name).write_text("b")
    assert [str(cause) for cause in pipeline.plan()[1].causes] == [f"edited sorted/{name}"]
    assert pipeline.run() == ["sort"]


@pytest.mark.parametrize("part", ["outputs", "parts"])
def test_manifest_edited_by_hand_is_noticed_and_its_stage_runs_again(pipeline, part):
    pipeline.run()
    path = pipeline.store.folder("sort", pipeline.plan()[1].manifest.key) / manifests.NAME
    raw = json.loads(path.read_text())
    raw[part] = {**raw[part], next(iter(raw[part])): "0" * 64}
    path.write_text(json.dumps(raw))
    assert "was edited" in str(pipeline.plan()[1].causes[0])
    assert [problem for _, problem in maintenance.verify(pipeline.store, False) if problem]
    assert pipeline.run() == ["sort"]


def test_artifact_of_a_past_run_that_was_deleted_is_named_as_missing(pipeline):
    pipeline.run()
    cache_key = {plan.stage.name: plan.key for plan in pipeline.plan()}
    RunRecord("20260101T000000-0001-1", "p", (), cache_key).write(pipeline.store.root)
    shutil.rmtree(pipeline.store.folder("sort", cache_key["sort"]))
    assert [str(cause) for cause in pipeline.plan()[1].causes] == [
        f"missing sort/{cache_key['sort'][:12]}"
    ]
    assert pipeline.run() == ["sort"]


def test_artifact_copied_to_another_disk_with_new_times_is_still_whole(pipeline):
    pipeline.run()
    folder = pipeline.store.folder("sort", pipeline.plan()[1].manifest.key)
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]


def test_half_finished_rsync_of_the_artifacts_counts_as_missing_or_edited(toy, pipeline, tmp_path):
    """rsync copies into `.name.suffix` and renames; cut off, later files are missing or whole."""
    pipeline.run()
    copy = tmp_path / "copy"
    shutil.copytree(pipeline.store.root, copy, symlinks=True)
    there = toy.Pipeline(copy)
    read, sort, join = (there.store.folder(p.stage.name, p.key) for p in pipeline.plan())
    (read / manifests.NAME).rename(read / f".{manifests.NAME}.aB3dEf")
    data = sort / "sorted.txt"
    data.rename(sort / ".sorted.txt.aB3dEf")
    os.truncate(sort / ".sorted.txt.aB3dEf", 2)
    shutil.rmtree(join)
    with there.digests:
        problems = {f.parent.name for f, p in maintenance.verify(there.store, deep=True) if p}
        assert problems >= {"sort"}
        assert there.decisions()[:2] == ["RUN", "MAYBE"]
        assert there.run() == ["read", "sort", "join"]
        assert there.decisions() == ["HIT", "HIT", "HIT"]
    assert [p.outputs for p in made(there)] == [p.outputs for p in made(pipeline)]


def made(pipeline):
    return [plan.manifest for plan in pipeline.plan()]


def test_threads_of_a_stage_sleep_at_barriers(toy, pipeline, monkeypatch):
    """Threads that spin take the CPU from the one that they wait for."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    seen = []
    monkeypatch.setattr(
        toy, "sort", watched(toy.sort, lambda: seen.append(os.environ.get("OMP_WAIT_POLICY")))
    )
    pipeline.run()
    assert seen == ["PASSIVE"]


def watched(function, note):
    def run(*arguments):
        note()
        return function(*arguments)

    return run


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine or user may not mount")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_full_disk_is_named_and_after_making_room_the_run_goes_on(toy, small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 120_000)
    pipeline = toy.Pipeline(small_disk / "artifacts")
    toy.SOURCE.write_text("word " * 40_000)
    with pytest.raises(PipelineError, match=r"no space left on .* GiB free"):
        pipeline.run()
    filler.unlink()
    toy.SOURCE.write_text("few words")
    assert pipeline.run() == ["read", "sort", "join"]


def test_remedy_for_a_full_disk_makes_room_for_the_run(toy, small_disk, monkeypatch):
    from flows.cli import main

    def run(text):
        toy.SOURCE.write_text(text)
        with pipeline.digests:
            made = pipeline.run()
        plans = {p.stage.name: p.key for p in pipeline.plan()}
        RunRecord(runs.new_id(pipeline.store.root), "p", (), plans).write(pipeline.store.root)
        return made

    monkeypatch.setenv("FINETUNE_HOME", str(small_disk))
    pipeline = toy.Pipeline(small_disk / "artifacts")
    with pytest.raises(PipelineError) as full:
        for number in range(40):
            run(f"word{number} " * 1500)
    assert f"no space left on {small_disk}, which holds {small_disk}/artifacts" in str(full.value)
    assert " of 0.00 GiB free" in full.value.problem
    command = full.value.remedy.split("`")[1].split()
    assert command[0] == "finetune" and main(command[1:]) == 0
    assert run(toy.SOURCE.read_text()) == ["read", "sort", "join"]


def test_full_temporary_folder_is_told_from_the_disk_of_the_artifacts(
    pipeline, small_disk, monkeypatch
):
    pipeline.run()
    (small_disk / "filler").write_bytes(bytes(200_000))
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    told = no_space("stage merge", pipeline.store.root, OSError(errno.ENOSPC, "No space left"))
    assert f"no space left on {small_disk}" in told.problem
    assert "TMPDIR" in told.remedy and "finetune gc" not in told.remedy


@pytest.mark.parametrize("library", ["torch", "safetensors"])
def test_full_disk_is_named_by_what_writes_checkpoints_too(toy, small_disk, monkeypatch, library):
    import torch
    from safetensors.torch import save_file

    save = {"torch": torch.save, "safetensors": save_file}[library]

    def write(config, inputs, work):
        save({"weight": torch.zeros(100_000)}, work.scratch / "checkpoint")

    monkeypatch.setattr(toy, "read", write)
    with pytest.raises(PipelineError, match=r"no space left on .* GiB free"):
        toy.Pipeline(small_disk / "artifacts").run()


def test_read_only_artifacts_folder_can_be_planned_and_a_run_says_what_is_wrong(
    toy, small_disk, monkeypatch, capsys
):
    from flows.cli import main

    writing = toy.Pipeline(small_disk / "artifacts")
    with writing.digests:  # open files would keep the mount writable
        writing.run()
    RunRecord("20260101T000000-0001-1", "p").write(writing.store.root)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    pipeline = toy.Pipeline(small_disk / "artifacts")
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]
    toy.SOURCE.write_text("kiwi")
    for refused in (pipeline.run, pipeline.store.in_use().__enter__):
        with pytest.raises(PipelineError, match="can't be written"):
            refused()
    monkeypatch.setenv("FINETUNE_HOME", str(small_disk))
    for command in (["gc"], ["pin", "-1"]):
        assert main(command) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 2
        assert "Read-only file system" in said[0]


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
        from tasks.core.cache import cache_key

        real = cache_key.closure

        def closure(reference, digests, **_):
            if reference == "toy:sort":
                return {"tasks.sorting": {"order": "changed"}}
            return real(reference, digests)

        monkeypatch.setattr(cache_key, "closure", closure)
        return pipeline

    def test_accepted_artifact_is_a_hit_and_says_what_was_waved_through(self, changed):
        assert changed.decisions()[1] == "RUN"
        manifest = maintenance.accept(changed.store, changed.plan()[1])
        assert changed.decisions() == ["HIT", "HIT", "HIT"]
        assert manifest.made["accepted"][0]["causes"] == ["code tasks/sorting.py (order)"]

    def test_undo_makes_the_stage_run_again(self, changed):
        maintenance.accept(changed.store, changed.plan()[1])
        maintenance.undo_accept(changed.store, changed.plan()[1])
        assert changed.run() == ["sort"]

    def test_what_was_undone_can_be_accepted_again_though_a_run_rested_on_it(self, changed):
        key = maintenance.accept(changed.store, changed.plan()[1]).key
        RunRecord("20260101T000000-0001-1", "p", (), {"sort": key}).write(changed.store.root)
        maintenance.undo_accept(changed.store, changed.plan()[1])
        assert [cause.kind for cause in changed.plan()[1].causes] == ["missing", "code"]
        maintenance.accept(changed.store, changed.plan()[1])
        assert changed.decisions() == ["HIT", "HIT", "HIT"]

    def test_change_of_data_is_not_a_matter_of_opinion(self, pipeline, toy):
        pipeline.run()
        toy.SOURCE.write_text("other")
        with pytest.raises(PipelineError, match=r"runs because of data"):
            maintenance.accept(pipeline.store, pipeline.plan()[0])


def test_plan_stays_the_same_for_two_planners_at_once(pipeline, toy):
    pipeline.run()
    with DigestCache(None) as digests:
        settings = check({"hardware": {"device": "cpu"}})
        from tasks.core.cache.plan import Selection

        other = Planner(toy.STAGES, settings, pipeline.store, digests, Selection())
        assert [p.key for p in other.plan()] == [p.key for p in pipeline.plan()]
