"""Folders of stages that are links: to another disk, to nothing, to what can't be written."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tasks.core.artifacts.garbage_collection import collect, find_garbage
from tasks.core.cache.decision import Selection
from tasks.core.errors import PipelineError


@pytest.fixture
def other_disk(tmp_path):
    """A folder on another file system."""
    root = Path("/dev/shm")
    if not root.is_dir() or root.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    folder = Path(tempfile.mkdtemp(dir=root))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def linked(pipeline, other_disk):
    """The pipeline after a run; the folder of `sort` is on another disk."""
    pipeline.store.root.mkdir(parents=True, exist_ok=True)
    (pipeline.store.root / "sort").symlink_to(other_disk)
    assert pipeline.run() == ["read", "sort", "join"]
    return pipeline


def test_stage_folder_can_be_a_link_to_another_disk(linked, other_disk):
    assert linked.decisions() == ["HIT", "HIT", "HIT"]
    assert linked.run(selection=Selection(force=("sort",))) == ["sort"]
    collect(linked.store.root, find_garbage(linked.store, 0, 0, frozenset()))
    assert list(other_disk.iterdir()) == []


def test_replacing_and_collecting_copy_nothing_from_the_other_disk(linked, monkeypatch):
    copied = []
    real = shutil.copytree
    monkeypatch.setattr(
        shutil, "copytree", lambda a, b, **options: (copied.append(a), real(a, b, **options))
    )
    linked.run(selection=Selection(force=("sort",)))
    collect(linked.store.root, find_garbage(linked.store, 0, 0, frozenset()))
    assert [path.name for path in copied] == ["out"]


@pytest.mark.parametrize("killed", [".{}.part", ".{}.replaced"])
def test_what_a_killed_move_left_on_the_other_disk_goes_with_the_next_run(
    linked, other_disk, killed
):
    key = linked.plan()[1].key[:12]
    (other_disk / killed.format(key)).mkdir()
    linked.store.sweep()
    assert [path.name for path in other_disk.iterdir()] == [key]


BLOCKED = {
    "a link to nothing": (lambda path: path.symlink_to("/no/such/folder"), "/no/such/folder"),
    "a link to a file": (lambda path: path.symlink_to(__file__), "where there is no folder"),
    "a file": (lambda path: path.touch(), "it is a file"),
    "a link to /proc": (lambda path: path.symlink_to("/proc"), "can't be written"),
}


@pytest.mark.parametrize("what", BLOCKED)
def test_folder_that_takes_no_artifact_is_an_error_before_the_stage_runs(pipeline, toy, what):
    block, said = BLOCKED[what]
    pipeline.store.root.mkdir(exist_ok=True)
    block(pipeline.store.root / "sort")
    with pytest.raises(PipelineError, match=said) as error:
        pipeline.run()
    assert "sort" not in toy.RUNS
    assert error.value.remedy.endswith("or remove it.")
    (pipeline.store.root / "sort").unlink()
    assert pipeline.run() == ["sort", "join"]


def test_finished_work_whose_folder_is_blocked_stays_and_other_runs_go_on(pipeline):
    pipeline.run()
    key = pipeline.plan()[1].key
    place = pipeline.store.folder("sort", key)
    with pipeline.store.working("sort", key, lambda: None) as work:
        work.out.rmdir()
        shutil.move(place, work.out)  # a run that was killed before the rename
    place.parent.rmdir()
    place.parent.symlink_to("/no/such/folder")
    pipeline.store.sweep()
    place.parent.unlink()
    assert pipeline.run() == []
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]
