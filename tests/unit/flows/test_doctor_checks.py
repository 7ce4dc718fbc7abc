"""`finetune doctor` on the machine: each fault is created here, found and fixed."""

import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest

from flows.commands.doctor import command as doctors
from flows.commands.doctor import machine
from flows.orchestration import server_checks
from tasks.core.errors import PipelineError
from tasks.core.sandbox import Sandbox, cgroup, levels

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """artifacts/ of a home of its own."""
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    (tmp_path / "artifacts").mkdir()
    return tmp_path / "artifacts"


def test_too_little_disk_is_found_with_both_numbers_and_gone_with_room(root, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: Usage(100, 97, 3 * 2**30))
    (finding,) = machine.disk()
    assert "3.0 GiB free" in finding.problem
    assert "20" in finding.problem
    assert finding.fix is None  # what may go is for a person to say
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: Usage(100, 0, 30 * 2**30))
    assert machine.disk() == []


def test_folders_of_dead_runs_are_found_and_swept_but_no_checkpoint(root):
    for name in ("filter-aaaaaaaaaaaa", "train-bbbbbbbbbbbb"):
        for part in ("out", "scratch"):
            (root / ".work" / name / part).mkdir(parents=True)
    checkpoint = root / ".work/train-bbbbbbbbbbbb/scratch/step-00000007"
    checkpoint.write_text("weights")
    (root / ".trash/merge-cccccccccccc-1").mkdir(parents=True)
    (finding,) = machine.leftovers()
    assert finding.problem.startswith("2 folders")
    finding.fix()
    assert machine.leftovers() == []
    assert checkpoint.exists()


def test_missing_bubblewrap_is_found_with_the_command_that_installs_it(tmp_path, monkeypatch):
    with monkeypatch.context() as bare:
        bare.setenv("PATH", str(tmp_path))
        bare.setattr(levels, "_TOOLS", str(tmp_path))
        (finding,) = machine.sandbox()
    assert "bwrap is not installed" in finding.problem
    assert "apt-get install bubblewrap" in finding.remedy
    if shutil.which("bwrap"):
        assert "not installed" not in "".join(found.problem for found in machine.sandbox())


def test_bubblewrap_that_cannot_start_is_found_with_its_message(monkeypatch):
    monkeypatch.setattr(levels, "missing_tool", lambda level: None)
    monkeypatch.setattr(
        levels, "command", lambda *_: ["sh", "-c", "echo 'no user namespace' >&2; exit 1"]
    )
    (finding,) = machine.sandbox()
    assert "no user namespace" in finding.problem


def test_the_level_that_will_be_used_is_named_with_the_reason(monkeypatch, capsys):
    works = {"bubblewrap": "bwrap is not installed", "unshare": None}
    monkeypatch.setattr(Sandbox, "defect", lambda box: works[box.level])
    monkeypatch.setattr(doctors, "checks", lambda: (machine.sandbox,))
    monkeypatch.setattr(cgroup, "usable", lambda: (None, "no cgroup v2"))
    assert doctors.examine(fix=False, as_json=False) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "runs under unshare (bwrap is not installed; no cgroup" in said
    assert "no cgroup v2)" in said


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of stand-in packages that another interpreter imports first."""
    folder = tmp_path / "packages"
    (folder / "bitsandbytes").mkdir(parents=True)
    (folder / "bitsandbytes/__init__.py").touch()
    (folder / "bitsandbytes/functional.py").write_text(
        "def quantize_4bit(*a, **k): return a, k\ndef dequantize_4bit(*a): pass\n"
    )
    (folder / "torch.py").write_text(
        "class cuda:\n    is_available = staticmethod(lambda: False)\n"
        "class version:\n    cuda = '13.0'\ndef ones(*a, **k): pass\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def test_cuda_that_bitsandbytes_cannot_load_is_found_until_it_can(packages, monkeypatch):
    monkeypatch.setattr(machine, "DRIVER", packages / "no driver")
    whole = (packages / "bitsandbytes/functional.py").read_text()
    (packages / "bitsandbytes/functional.py").write_text(
        "raise OSError('libcudart.so.13: cannot open shared object file')"
    )
    (finding,) = machine.quantization()
    assert "libcudart.so.13" in finding.problem
    assert "bitsandbytes" in finding.remedy
    (packages / "bitsandbytes/functional.py").write_text(whole)
    assert machine.quantization() == []


def test_a_gpu_that_torch_does_not_see_is_found(packages, monkeypatch):
    driver = packages / "version"
    driver.touch()
    monkeypatch.setattr(machine, "DRIVER", driver)
    (finding,) = machine.quantization()
    assert "CUDA 13.0" in finding.problem


def test_a_gpu_without_bfloat16_is_a_note_and_an_older_one_a_fault():
    assert machine._old_gpu("cuda 13.0\nRTX 3080|8|6") == machine._old_gpu("cpu None") == []
    (note,) = machine._old_gpu("cuda 13.0\nTesla T4|7|5")
    assert (note.is_note, "run in float16" in note.problem) == (True, True)
    (fault,) = machine._old_gpu("cuda 12.6\nGTX 1080|6|1")
    assert (fault.is_note, "needs 7.0" in fault.problem) == (False, True)


def test_server_of_another_version_is_found_with_both_versions():
    assert server_checks.version_differs("3.8.8", "3.8.8") == []
    (finding,) = server_checks.version_differs("3.1.0", "3.8.8")
    assert "3.1.0" in finding.problem
    assert "3.8.8" in finding.problem


def test_a_process_that_ended_or_whose_number_was_given_away_is_not_alive():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    state = {"timestamp": "2020-01-01T00:00:00+00:00"}
    now = {"state": state, "start_time": "2099-01-01T00:00:00+00:00"}
    before = {"state": state, "start_time": "2020-01-01T00:00:00+00:00"}
    assert not server_checks._is_alive(ended.pid, now)
    assert server_checks._is_alive(os.getpid(), now)
    assert not server_checks._is_alive(os.getpid(), before)
    assert not server_checks._is_alive(None, before)


@pytest.fixture
def one_fault(monkeypatch, tmp_path):
    """A doctor with one check, whose fault is a file."""
    fault = tmp_path / "fault"
    fault.touch()

    def look():
        return [doctors.Finding("f", "is bad", "Fix it.", fault.unlink)] if fault.exists() else []

    monkeypatch.setattr(doctors, "checks", lambda: (look,))
    return fault


def test_doctor_reports_faults_and_fixes_them_only_when_asked(one_fault, capsys):
    assert doctors.examine(fix=False, as_json=False) == 1
    assert "Fix it.  (or run with --fix)" in capsys.readouterr().out
    assert one_fault.exists()
    assert doctors.examine(fix=True, as_json=False) == 0
    assert not one_fault.exists()
    assert doctors.examine(fix=False, as_json=False) == 0
    assert capsys.readouterr().out.endswith("0 faults, 0 notes.\n")


def test_a_failing_remedy_is_reported_and_the_others_are_applied(one_fault, monkeypatch, capsys):
    def fails():
        raise PipelineError("prefect deploy failed", "Look at the server.")

    hopeless = doctors.Finding("deployments", "are not there", "Deploy.", fails)
    (look,) = doctors.checks()
    monkeypatch.setattr(doctors, "checks", lambda: (lambda: [hopeless], look))
    assert doctors.examine(fix=True, as_json=False) == 1
    told = capsys.readouterr()
    assert "deployments: not fixed: prefect deploy failed" in told.err
    assert "1 fault, 0 notes, 1 fixed." in told.out
    assert not one_fault.exists()


def test_every_finding_of_a_real_machine_has_a_remedy(root):
    shutil.rmtree(root)  # a machine on which nothing ever ran
    for finding in [*machine.disk(), *machine.leftovers(), *machine.sandbox()]:
        assert finding.remedy.endswith(".")


def test_a_note_is_no_failure_and_what_is_good_is_listed(root, monkeypatch, capsys):
    note = doctors.Finding("server", "is not set", "Start one.", is_note=True)
    monkeypatch.setattr(doctors, "checks", lambda: (machine.leftovers, lambda: [note]))
    assert doctors.examine(fix=False, as_json=False) == 0
    good, told, remedy, count = capsys.readouterr().out.splitlines()
    assert good.split(maxsplit=2) == ["ok", "leftovers", "no leftovers of dead runs"]
    assert told.startswith("note   server")
    assert remedy.strip() == "Start one."
    assert count == "0 faults, 1 note."


def test_less_disk_than_a_large_model_needs_is_a_note_and_almost_none_is_a_fault(root, monkeypatch):
    for free, is_note in ((3, True), (0.5, False)):
        usage = Usage(100, 97, free * 2**30)
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _, usage=usage: usage)
        (finding,) = machine.disk()
        assert finding.is_note == is_note
