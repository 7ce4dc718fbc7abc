"""Control groups: the protocol with plain files, and real limits where groups can be created."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tasks.core.sandbox import BUBBLEWRAP, OOM, UNSHARE, Job, Limits, Sandbox, cgroup, process

OWN = "user.slice/run-1.scope"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A file system of groups as plain files; this process is in a group that may be divided."""
    monkeypatch.setattr(cgroup, "_TRIES", 2)
    folder = tmp_path / "cgroup"
    (folder / OWN).mkdir(parents=True)
    for place in (folder, folder / OWN):
        (place / "cgroup.controllers").write_text("cpu memory pids\n")
        (place / "cgroup.subtree_control").write_text("\n")
        (place / "cgroup.procs").write_text("41\n42\n")
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"1")
    return folder


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own"
    file.write_text(f"5:cpu:/other\n0::/{OWN}\n")
    return file


def test_a_delegated_group_is_divided_after_its_processes_moved_into_a_child(root, own):
    assert cgroup.divided(root, own) == root / OWN
    assert (root / OWN / "finetune/cgroup.procs").read_text() == "42"  # each is written alone
    assert (root / OWN / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_a_later_process_of_the_unit_uses_the_divided_group(root, own):
    cgroup.divided(root, own)
    (root / OWN / "cgroup.subtree_control").write_text("memory pids\n")
    own.write_text(f"0::/{OWN}/finetune\n")
    assert cgroup.divided(root, own) == root / OWN


def test_a_group_that_is_not_delegated_is_left_alone_with_the_command_that_helps(
    root, own, monkeypatch
):
    def refuse(path, text):
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(os, "getxattr", lambda path, name: b"")
    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(OSError, match="systemd-run --user --scope -p Delegate=yes"):
        cgroup.divided(root, own)
    assert not (root / OWN / "finetune").exists()


def test_without_version_2_or_a_controller_the_reason_is_named(root, own):
    (root / OWN / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(OSError, match="no controller memory"):
        cgroup.divided(root, own)
    (root / "cgroup.controllers").unlink()
    with pytest.raises(OSError, match="no cgroup v2"):
        cgroup.divided(root, own)


def test_a_group_gets_its_limits_and_a_command_enters_it_before_it_starts(root):
    with cgroup.group(root, memory_mib=3, processes=4) as group:
        limits = {name: (group.folder / name).read_text() for name in ("memory.max", "pids.max")}
        done = subprocess.run(group.start(["/bin/echo", "x y"]), capture_output=True, check=True)
        assert (group.folder / "cgroup.procs").read_text() == "0\n"
    assert limits == {"memory.max": str(3 << 20), "pids.max": "12"}
    assert done.stdout == b"x y\n"


@pytest.mark.parametrize(
    ("events", "full"), [("oom 1\noom_kill 2", True), ("oom 0\noom_kill 1", False)]
)
def test_only_the_limit_of_the_group_itself_counts_as_exceeded(tmp_path, events, full):
    (tmp_path / "memory.events").write_text(events)  # oom 0: the machine had no memory
    assert cgroup.Group(tmp_path).exceeded() is full


def test_groups_of_killed_pipelines_are_removed(root):
    for name in ("sandbox-999999999-0", f"sandbox-{os.getpid()}-0"):
        (root / name).mkdir()
    cgroup._remove_old(root)
    assert [path.name for path in root.glob("sandbox-*")] == [f"sandbox-{os.getpid()}-0"]


# --- real groups ------------------------------------------------------------------------------


@pytest.fixture
def parent():
    folder, why = cgroup.usable()
    if folder is None:
        pytest.skip(why)
    return folder


def test_the_kernel_ends_a_command_that_exceeds_its_group(parent, monkeypatch):
    script = "python3 -c 'x = bytearray(b\"x\") * (64 << 20); import time; time.sleep(60)' & wait"
    before = set(parent.iterdir())
    monkeypatch.setattr(process, "memory_mib", lambda pid: 0)  # nothing is measured
    ended = process.run_process(["/bin/sh", "-c", script], b"", 30, 32, 8)
    assert (ended.memory_mib, ended.code) == (32, -9)
    assert set(parent.iterdir()) == before


def test_a_command_that_leaves_its_session_ends_with_its_group(parent):
    with cgroup.group(parent, memory_mib=32, processes=8) as group:
        subprocess.run(group.start(["/bin/sh", "-c", "setsid sleep 600 & sleep 0.2"]), check=True)
        assert (group.folder / "cgroup.procs").read_text()
    assert not group.folder.exists()


@pytest.mark.parametrize("level", [BUBBLEWRAP, UNSHARE])
def test_a_sandbox_ends_by_the_limit_of_its_group(parent, monkeypatch, level):
    program = """
import os, time
def f():
    for _ in range(6):
        if os.fork() == 0:
            kept = bytearray(b"x") * (100 << 20)
            time.sleep(600)
    time.sleep(600)
"""
    monkeypatch.setattr(process, "memory_mib", lambda pid: 0)  # nothing is measured
    box = Sandbox(level, Limits(memory_mib=128))
    if (reason := box.defect()) is not None:
        pytest.skip(reason)
    assert box.name == f"{level} in a cgroup"
    outcome = box.run(Job(program, "f", "f()", timeout_s=60))
    assert (outcome.status, outcome.detail) == (OOM, "its processes used 256 MiB together")
