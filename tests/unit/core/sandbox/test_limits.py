"""Limits of the whole sandbox, the system-call filter, and whose fault an early end is."""

import ctypes
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tasks.core.sandbox import (
    BUBBLEWRAP,
    EXCEPTION,
    INFRA,
    OOM,
    PASS,
    RLIMITS,
    TIMEOUT,
    UNSHARE,
    Job,
    Limits,
    Outcome,
    Sandbox,
    syscalls,
)
from tasks.core.sandbox.process import Ended, memory_mib, read_outcome, run_process

MEMORY_MIB = 256


@pytest.fixture(scope="module", params=[BUBBLEWRAP, UNSHARE])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    box = Sandbox(request.param, Limits(memory_mib=MEMORY_MIB))
    if (reason := box.defect()) is not None:
        pytest.skip(f"{request.param} does not work here: {reason}")
    return box


def run(box: Sandbox, program: str, checks: str, timeout_s: float = 10.0) -> Outcome:
    return box.run(Job(program, "f", checks, timeout_s=timeout_s))


def test_a_small_answer_cannot_make_the_checks_take_any_memory(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "def f(n): return range(25 * 10**6)", "assert len(list(f(3))) == 3")
    assert (outcome.status, outcome.detail) == (OOM, "the checks ran out of memory")


def test_checks_in_a_loop_of_c_are_stopped_by_their_cpu_time(sandbox: Sandbox) -> None:
    begin = time.monotonic()
    outcome = run(sandbox, "def f(): return range(10**12)", "assert sum(f()) == 3", timeout_s=0.5)
    assert outcome.status == TIMEOUT
    assert time.monotonic() - begin < 10


def test_all_processes_together_have_twice_the_memory_of_one(sandbox: Sandbox) -> None:
    program = f"""
import os, time
def f():
    for _ in range(6):
        if os.fork() == 0:
            kept = bytearray(b"x") * ({MEMORY_MIB} << 19)
            time.sleep(600)
    time.sleep(600)
"""
    outcome = run(sandbox, program, "f()", timeout_s=60)
    assert outcome.status == OOM
    assert "together" in outcome.detail


def test_a_program_that_ends_its_loop_by_stop_iteration_does_not_pass(sandbox: Sandbox) -> None:
    for checks in (
        "assert all(map(lambda x: f(x) == x, [1, 2]))",
        "for _ in zip(map(f, [1]), [2]): pass",
        "assert next(filter(f, [1]), None) is None",
    ):
        for together, detail in ((False, "StopIteration"), (True, "RuntimeError: StopIteration")):
            job = Job("def f(x): raise StopIteration", "f", checks, together=together)
            outcome = sandbox.run(job)
            assert (outcome.status, outcome.detail) == (EXCEPTION, detail)


def test_a_checker_that_is_killed_from_outside_is_not_the_program_s_fault(sandbox: Sandbox) -> None:
    def kill() -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            line = descendants(os.getpid())
            # the program is the last process, its parent the checker; both have started
            if len(line) >= 3 and b"sh" not in Path(f"/proc/{line[-2]}/comm").read_bytes():
                time.sleep(0.5)
                os.kill(descendants(os.getpid())[-2], signal.SIGKILL)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    job = Job("def f(): return 1", "f", "import time\nf()\ntime.sleep(30)", timeout_s=30)
    outcome = sandbox.run(job, tries=1)
    thread.join()
    assert (outcome.status, outcome.detail) == (INFRA, "the checker was killed")


def descendants(pid: int) -> list[int]:
    """The youngest child of a process, its youngest child, and so on."""
    found: list[int] = []
    while True:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        if not children:
            return found
        pid = max(children)
        found.append(pid)


def test_a_signal_for_cpu_time_is_a_timeout() -> None:
    for code in (128 + signal.SIGXCPU, -signal.SIGXCPU):
        assert read_outcome(Ended(b"started\n", b"", code, 2.0), "n", 3).status == TIMEOUT
    killed = Ended(b"started\n", b"", 137, 4.0)  # the hard limit, a second after the soft one
    assert read_outcome(killed, "n", 3).status == TIMEOUT


def test_memory_of_children_counts() -> None:
    script = "python3 -c 'x = bytearray(b\"x\") * (64 << 20); import time; time.sleep(60)' & wait"
    ended = run_process(["/bin/sh", "-c", script], b"", 30, total_mib=48, processes=8)
    assert ended.memory_mib > 48
    assert memory_mib(os.getpid()) > 1


# --- system-call filter ---------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_the_numbers_of_system_calls_are_those_of_libseccomp(machine: str, arch: int) -> None:
    try:
        resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    except OSError:
        pytest.skip("libseccomp is not installed")
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    known = {name: resolve(arch, name.encode()) for name in syscalls.numbers(machine)}
    assert syscalls.numbers(machine) == {
        name: number if number != -1 else syscalls.numbers(machine)[name]  # newer than the library
        for name, number in known.items()
    }


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_of_the_filter_ends_inside_it(machine: str) -> None:
    program = syscalls.build_filter(machine)
    assert program is not None
    for at, (code, yes, no, _) in enumerate(program):
        if code & 7 == 5:  # a jump
            assert at + 1 + max(yes, no) < len(program)


def test_without_a_table_for_the_machine_no_sandbox_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls.platform, "machine", lambda: "riscv64")
    defect = Sandbox(BUBBLEWRAP).defect()
    assert defect is not None
    assert "no system-call filter for riscv64" in defect


def test_threads_subprocesses_and_local_sockets_still_work(sandbox: Sandbox) -> None:
    program = """
import asyncio, subprocess, threading
def f():
    done = []
    thread = threading.Thread(target=done.append, args=(1,))
    thread.start()
    thread.join()
    asyncio.run(asyncio.sleep(0))
    return done, subprocess.run(["/bin/echo", "x"], capture_output=True).stdout
"""
    assert run(sandbox, program, "assert f() == ([1], b'x\\n')").status == PASS


def test_what_checks_print_is_no_result_and_fills_no_memory(sandbox: Sandbox) -> None:
    checks = "for _ in range(3000): print('x' * 10**4)\nassert f() == 1"
    assert run(sandbox, "def f(): return 1", checks, timeout_s=30).status == PASS


def test_a_program_under_rlimits_starts_in_a_temporary_folder_that_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = """
import os, tempfile
def f():
    for name in range(50): open(str(name), "w").close()
    os.mkdir("closed", 0)
    return os.getcwd(), tempfile.gettempdir(), os.path.expanduser("~")
"""
    checks = f"folder, *others = f()\nassert folder.startswith({str(tmp_path)!r} + '/'), folder\n"
    box = Sandbox(RLIMITS)
    assert run(box, program, f"{checks}assert others == [folder, folder]").status == PASS
    assert list(tmp_path.iterdir()) == []
