import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.core import progress
from tasks.core.cache import digest_cache
from tasks.core.cache import manifest as manifests
from tasks.core.cache import store as stores
from tasks.core.cache.decision import Selection
from tasks.core.cache.execute import RunContext, execute
from tasks.core.errors import PipelineError, StageError
from tasks.core.settings.config import check
from tasks.core.system.file_lock import locked


def test_manifest_without_its_end_counts_as_no_artifact(pipeline):
    pipeline.run()
    key = pipeline.plan()[0].manifest.key
    path = pipeline.store.folder("read", key) / manifests.NAME
    path.write_text(path.read_text()[:-20])
    found = pipeline.store.find("read", key)
    assert found.manifest is None
    assert found.problem[0] == "unreadable"


@pytest.fixture
def edited(pipeline):
    """A pipeline, the manifest of `sort`, and its output, edited with its time restored."""
    pipeline.run()
    manifest = pipeline.plan()[1].manifest
    path = pipeline.store.folder("sort", manifest.key) / "sorted.txt"
    stat = path.stat()
    path.write_bytes(b"X" + path.read_bytes()[1:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return pipeline, manifest, path


def test_edit_that_restores_the_modification_time_is_found(edited):
    pipeline, manifest, _ = edited
    assert pipeline.store.find("sort", manifest.key).problem == ("edited", "sorted.txt")


def test_bit_flip_that_changes_no_time_is_found_by_the_deep_check_only(edited):
    pipeline, manifest, path = edited
    file = replace(manifest.files["sorted.txt"], ctime_ns=path.stat().st_ctime_ns)
    files = {**manifest.files, "sorted.txt": file}
    replace(manifest, files=files).write(path.parent)  # as if no program had written the bytes
    assert pipeline.store.find("sort", manifest.key).problem is None
    assert pipeline.store.find("sort", manifest.key, deep=True).problem == ("edited", "sorted.txt")


def test_failed_stage_leaves_no_artifact_and_names_its_log(pipeline, toy, monkeypatch):
    def broken(config, inputs, work):
        (work.out / "sorted.txt").write_text("half")
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(toy, "sort", broken)
    with pytest.raises(StageError, match="stage sort failed: ZeroDivisionError: by zero") as error:
        pipeline.run()
    assert "ZeroDivisionError" in error.value.log.read_text()
    assert pipeline.decisions() == ["HIT", "RUN", "RUN"]


def test_stage_that_does_not_write_a_declared_output_is_refused(pipeline, toy, monkeypatch):
    from tasks.core.stage import Summary

    monkeypatch.setattr(toy, "sort", lambda config, inputs, work: Summary("nothing"))
    with pytest.raises(StageError, match="did not write"):
        pipeline.run()


def test_source_that_changes_while_it_is_read_is_not_stored(pipeline, toy, monkeypatch):
    from tasks.core.stage import Summary

    def slow_read(config, inputs, work):
        (work.out / "words.txt").write_text(toy.SOURCE.read_text())
        toy.SOURCE.write_text("changed meanwhile")
        return Summary("read")

    monkeypatch.setattr(toy, "read", slow_read)
    with pytest.raises(PipelineError, match=r"words\.txt changed while being read"):
        pipeline.run()
    assert pipeline.decisions()[0] == "RUN"


def test_scratch_survives_a_kill_and_comes_back_under_the_same_key(pipeline, toy, tmp_path):
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from tasks.core.cache.digest_cache import DigestCache
        from tasks.core.cache.store import Store
        store = Store(Path({str(tmp_path / "artifacts")!r}), DigestCache(None))
        with store.working("train", "a" * 64, lambda: None) as work:
            (work.scratch / "checkpoint").write_text("step 7")
            (work.out / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    with pipeline.store.working("train", "a" * 64, lambda: None) as work:
        assert (work.scratch / "checkpoint").read_text() == "step 7"
        assert list(work.out.iterdir()) == []


def test_run_killed_between_manifest_and_rename_is_published_not_repeated(pipeline, toy):
    pipeline.run()
    manifest = pipeline.plan()[1].manifest
    folder = pipeline.store.folder("sort", manifest.key)
    with pipeline.store.working("sort", manifest.key, lambda: None) as work:
        pass
    work.out.rmdir()
    folder.rename(work.out)
    assert pipeline.run() == []
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]


def test_a_second_process_waits_for_the_lock_and_says_so(pipeline, tmp_path):
    said = []
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from tasks.core.system.file_lock import locked
        with locked(Path({str(tmp_path / "lock")!r})):
            print("held", flush=True)
            sys.stdin.readline()
        """
    )
    from tasks.core.system.file_lock import locked

    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"

        def waiting():
            said.append("waiting")
            other.stdin.write("\n")
            other.stdin.flush()

        with locked(tmp_path / "lock", waiting):
            pass
    assert said == ["waiting"]


def test_a_run_that_waits_for_a_collection_says_so(pipeline):
    pipeline.run()
    said = []

    class Told:
        def update(self, *_):
            pass

        def message(self, text):
            said.append(text)
            collecting.__exit__(None, None, None)  # the collection ends once the run has said it

    collecting = pipeline.store.alone(lambda: None)
    collecting.__enter__()
    with progress.sink(Told()), pipeline.store.in_use():
        assert said == ["garbage collection is in progress; waiting for it to end"]


def test_cleaning_up_does_not_wait_for_a_run_that_begins_meanwhile(pipeline, monkeypatch):
    """Between a look at the lock and the attempt to hold it, another run can take it."""
    pipeline.run()
    work = pipeline.store.root / ".work" / f"sort-{'0' * 12}"
    work.mkdir(parents=True)
    monkeypatch.setattr(stores, "is_locked", lambda lock: False)
    with locked(pipeline.store.lock(work.name)):
        pipeline.store.sweep()
    assert work.is_dir()


@pytest.mark.parametrize("stage", ["read", "sort", "join"])
def test_an_artifact_that_is_collected_while_a_plan_reads_it_is_only_missing(
    pipeline, monkeypatch, stage
):
    """It disappears at any of the plan's looks at the disk."""
    pipeline.run()
    (pipeline.store.root / stage / "0123456789ab").mkdir()
    for path in pipeline.store.root.rglob("*.txt"):
        os.utime(path)  # so that its content is read
    folder, trash = pipeline.store.root / stage, pipeline.store.root / ".trash"
    looks, at, decisions = [], 0, set()

    def looking(function):
        def look(*arguments, **options):
            found = function(*arguments, **options)
            looks.append(function)
            if len(looks) == at:
                found = list(found) if function is os.scandir else found
                folder.rename(trash)
            return found

        return look

    while at <= len(looks):
        at += 1
        looks.clear()
        with monkeypatch.context() as patch:
            for owner, names in ((os, ["scandir"]), (Path, ["stat", "is_dir", "read_bytes"])):
                for name in names:
                    patch.setattr(owner, name, looking(getattr(owner, name)))
            decisions.update(pipeline.decisions())
        if trash.exists():
            trash.rename(folder)
    assert decisions >= {"HIT", "RUN"}
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]


def test_forced_run_replaces_the_artifact(pipeline, toy):
    pipeline.run()
    before = pipeline.plan()[0].manifest
    pipeline.run(selection=Selection(force=("read",)))
    after = pipeline.plan()[0].manifest
    assert before.key == after.key
    assert before.made["created"] <= after.made["created"]
    notes = pipeline.store.folder("read", after.key) / "notes.txt"
    assert "runs so far" in notes.read_text()
    leftovers = list((pipeline.store.root / ".work").glob("*"))
    assert leftovers == []


def test_execute_takes_what_another_process_made_meanwhile(pipeline, toy):
    planner = pipeline.planner()
    plan = planner.plan_stage("read")
    pipeline.run()
    toy.RUNS.clear()
    execute(plan, RunContext(check({"hardware": {"device": "cpu"}}), pipeline.store, {}))
    assert toy.RUNS == []
    assert list((pipeline.store.root / ".work").glob("*")) == []


def test_publishing_moves_the_files_and_copies_none(pipeline, toy, monkeypatch):
    written = {}
    real = toy.read

    def read(config, inputs, work):
        summary = real(config, inputs, work)
        written["inode"] = (work.out / "words.txt").stat().st_ino
        return summary

    monkeypatch.setattr(toy, "read", read)
    pipeline.run()
    manifest = pipeline.plan()[0].manifest
    published = pipeline.store.folder("read", manifest.key) / "words.txt"
    assert (published.stat().st_ino, published.stat().st_nlink) == (written["inode"], 1)


def test_accepting_links_the_files_and_copies_none(pipeline, monkeypatch):
    from tasks.core.artifacts import maintenance
    from tasks.core.cache import cache_key

    pipeline.run()
    old = pipeline.plan()[0].manifest
    monkeypatch.setattr(cache_key, "version", lambda name: "99")
    new = maintenance.accept(pipeline.store, pipeline.plan()[0])
    files = [pipeline.store.folder("read", m.key) / "words.txt" for m in (old, new)]
    assert files[0].samefile(files[1])
    assert files[0] != files[1]


@pytest.mark.parametrize("moved", ["closure", "version"])
def test_code_that_is_edited_during_a_run_does_not_slip_under_a_key_made_before(
    pipeline, monkeypatch, moved
):
    from tasks.core import package_version
    from tasks.core.cache import cache_key

    planner = pipeline.planner()
    plan = planner.plan_stage("read")
    settings = check({"hardware": {"device": "cpu"}})
    with monkeypatch.context() as edit:
        if moved == "closure":
            edit.setattr(
                cache_key,
                "closure",
                lambda run, digests, **_: {"tasks.reading": {"read": "edited"}},
            )
        else:
            edit.setattr(package_version.metadata, "version", lambda name: "99")
            edit.setattr(package_version.platform, "python_version_tuple", lambda: ("9", "9", "9"))
        with pytest.raises(PipelineError, match="changed since this run began; nothing stored"):
            execute(plan, RunContext(settings, pipeline.store, {}))
    assert pipeline.decisions()[0] == "RUN"
    execute(plan, RunContext(settings, pipeline.store, {}))
    assert pipeline.decisions()[0] == "HIT"


def test_log_of_a_run_that_was_killed_after_its_last_write_does_not_stay(pipeline):
    pipeline.run()
    key = pipeline.plan()[1].manifest.key[:12]
    logs = pipeline.store.root / ".logs"
    for name in (f"sort-{key}.log", f"sort-{'0' * 12}.log"):
        (logs / name).write_text("said")
    pipeline.store.sweep()
    assert [path.name for path in logs.iterdir()] == [f"sort-{'0' * 12}.log"]


def test_source_replaced_with_its_time_restored_runs_again(pipeline, toy, monkeypatch):
    monkeypatch.setattr(digest_cache, "SETTLED_NS", -1)
    os.utime(toy.SOURCE, (1_700_000_000,) * 2)
    pipeline.run()
    time.sleep(0.02)  # a tick of the file system's clock
    toy.SOURCE.write_text(toy.SOURCE.read_text().replace("fig", "gif"))
    os.utime(toy.SOURCE, (1_700_000_000,) * 2)
    assert pipeline.decisions()[0] == "RUN"


def test_wrong_cached_digest_is_dropped_when_a_run_finds_it(pipeline, toy, monkeypatch):
    monkeypatch.setattr(digest_cache, "SETTLED_NS", -1)
    wrong = pipeline.digests.recall("sha256", toy.SOURCE, lambda path: "0" * 64)
    assert pipeline.digests.digest(toy.SOURCE) == wrong
    with pytest.raises(PipelineError, match="changed while being read"):
        pipeline.run()
    assert pipeline.run() == ["read", "sort", "join"]
