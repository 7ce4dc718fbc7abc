"""Outcomes, isolation that no program of `probes` can report itself, parallel runs, failures of the
sandbox."""

import contextlib
import json
import os
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import PipelineError
from tasks.core.sandbox import (
    BUBBLEWRAP,
    EXCEPTION,
    INFRA,
    OOM,
    PASS,
    RLIMITS,
    SYNTAX,
    TIMEOUT,
    UNSHARE,
    WRONG,
    Job,
    Limits,
    Outcome,
    Sandbox,
    levels,
    plain_data,
    runner,
)

TIMEOUT_S = 10.0  # for programs that end by themselves, on a busy machine


@pytest.fixture(scope="module", params=[BUBBLEWRAP, UNSHARE])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    box = Sandbox(request.param, Limits(memory_mib=256), workers=2)
    if (reason := box.defect()) is not None:
        pytest.skip(f"{request.param} does not work here: {reason}")
    return box


def outcome_of(
    box: Sandbox, program: str, checks: str = "assert f() == 1", timeout_s: float = TIMEOUT_S
) -> Outcome:
    return box.run(Job(textwrap.dedent(program), "f", checks, timeout_s=timeout_s))


def answer(box: Sandbox, program: str) -> object:
    """The value that f() returns, from the text of a failing check."""
    outcome = outcome_of(box, program, "raise ValueError(repr(f()))")
    assert outcome.status == WRONG, outcome
    return eval(outcome.detail.removeprefix("ValueError: "))


# --- outcomes ---------------------------------------------------------------------------------


def test_a_right_function_passes(sandbox: Sandbox) -> None:
    assert outcome_of(sandbox, "def f():\n    return 1").status == PASS


def test_a_wrong_function_is_wrong_and_the_detail_is_the_failed_check(sandbox: Sandbox) -> None:
    outcome = outcome_of(sandbox, "def f():\n    return 2", "x = 3\nassert f() == 1\n")
    assert (outcome.status, outcome.detail) == (WRONG, "assert f() == 1")


def test_a_program_that_does_not_parse_is_syntax(sandbox: Sandbox) -> None:
    assert outcome_of(sandbox, "def f(:").status == SYNTAX


def test_a_program_that_raises_is_exception_with_its_text(sandbox: Sandbox) -> None:
    outcome = outcome_of(sandbox, "def f():\n    return {}['k']")
    assert (outcome.status, outcome.detail) == (EXCEPTION, "KeyError: 'k'")


def test_an_assertion_of_the_program_itself_is_exception(sandbox: Sandbox) -> None:
    assert outcome_of(sandbox, "def f():\n    assert False").status == EXCEPTION


def test_a_missing_function_is_exception(sandbox: Sandbox) -> None:
    assert outcome_of(sandbox, "def g():\n    return 1").status == EXCEPTION


def test_an_endless_loop_is_timeout_and_ends(sandbox: Sandbox) -> None:
    begin = time.monotonic()
    assert outcome_of(sandbox, "def f():\n    while True: pass", timeout_s=1).status == TIMEOUT
    assert time.monotonic() - begin < 6


def test_a_program_that_waits_is_timeout(sandbox: Sandbox) -> None:
    program = "import time\ndef f():\n    time.sleep(600)"
    assert outcome_of(sandbox, program, timeout_s=1).status == TIMEOUT


def test_checks_that_never_end_are_timeout(sandbox: Sandbox) -> None:
    checks = "f()\nwhile True: pass"
    assert outcome_of(sandbox, "def f(): return 1", checks, timeout_s=1).status == TIMEOUT


def test_a_memory_bomb_is_oom(sandbox: Sandbox) -> None:
    program = "kept = []\ndef f():\n    while True: kept.append(bytearray(1 << 22))"
    assert outcome_of(sandbox, program).status == OOM


def test_a_check_that_expects_an_exception_gets_it(sandbox: Sandbox) -> None:
    checks = "try:\n    f()\nexcept ValueError as e:\n    assert str(e) == 'x'\nelse:\n    assert 0"
    assert outcome_of(sandbox, "def f():\n    raise ValueError('x')", checks).status == PASS


def test_a_set_has_the_same_order_in_every_run(sandbox: Sandbox) -> None:
    program = "def f():\n    return list({'a', 'b', 'c', 'd', 'e', 'f'})"
    assert answer(sandbox, program) == answer(sandbox, program)


def test_random_numbers_are_the_same_in_every_run(sandbox: Sandbox) -> None:
    program = "import random\ndef f():\n    return random.random()"
    assert answer(sandbox, program) == answer(sandbox, program)


# --- a program cannot fake a pass -----------------------------------------------------------


def test_neither_nonce_nor_checks_are_in_the_program_s_memory(sandbox: Sandbox) -> None:
    # both reach the sandbox in one message
    program = """
        import gc
        def f():
            word, texts = "".join(["unmis", "takable"]), []
            for kept in gc.get_objects():
                if isinstance(kept, dict): kept = [*kept.keys(), *kept.values()]
                if isinstance(kept, (list, tuple, set)):
                    texts += [t for t in kept if isinstance(t, str)]
            return sum(word in t and t != word for t in texts)
    """
    assert (
        outcome_of(sandbox, program, "unmistakable = f()\nassert unmistakable == 0").status == PASS
    )


def test_killing_the_checker_counts_against_the_program(sandbox: Sandbox) -> None:
    program = "import os\ndef f():\n    os.kill(os.getppid(), 9)\n    os.kill(-1, 9)"
    assert outcome_of(sandbox, program).status in (EXCEPTION, OOM)


def test_checks_that_catch_everything_do_not_hide_a_dead_program(sandbox: Sandbox) -> None:
    checks = "try:\n    f()\nexcept BaseException:\n    pass"
    assert outcome_of(sandbox, "import os\ndef f(): os._exit(0)", checks).status == EXCEPTION


# --- the machine ---------------------------------------------------------------------------------


def test_a_home_folder_shows_nothing_but_the_interpreter(sandbox: Sandbox) -> None:
    home = str(Path.home())
    program = (
        f"import os\ndef f():\n    return os.listdir({home!r}) if os.path.isdir({home!r}) else []"
    )
    shown = answer(sandbox, program)
    prefix = Path(sys.base_prefix).resolve()
    allowed = {prefix.relative_to(home).parts[0]} if prefix.is_relative_to(home) else set()
    assert isinstance(shown, list)
    assert set(shown) <= allowed


def test_started_by_root_the_program_runs_as_another_user(sandbox: Sandbox) -> None:
    if os.geteuid() != 0:
        pytest.skip("not started by root")
    assert (
        answer(sandbox, "import os\ndef f():\n    return 0 in (os.getuid(), os.getgid())") is False
    )


def test_no_orphan_survives(sandbox: Sandbox) -> None:
    mark = f"6{os.getpid()}{time.monotonic_ns() % 100_000}"
    program = f"""
        import os, subprocess
        def f():
            if os.fork() == 0:
                os.setsid()
                os.execvp("sleep", ["sleep", "{mark}"])
            subprocess.Popen(["sleep", "{mark}"], start_new_session=True)
            return 1
    """
    assert outcome_of(sandbox, program).status == PASS
    end = time.monotonic() + 5  # the kernel ends a pid namespace shortly after its first process
    while mark in _command_lines() and time.monotonic() < end:
        time.sleep(0.05)
    assert mark not in _command_lines()


def _command_lines() -> str:
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts.append(path.read_bytes().decode(errors="replace"))
        except OSError:  # it has ended
            continue
    return "\n".join(texts)


def test_a_long_error_text_is_cut_to_one_line(sandbox: Sandbox) -> None:
    detail = outcome_of(sandbox, "def f():\n    raise ValueError('x\\n' * 10**6)").detail
    assert len(detail) < 400
    assert "\n" not in detail


def test_programs_do_not_find_each_other_s_files(sandbox: Sandbox) -> None:
    program = """
        import os
        def f():
            found = os.listdir("/tmp")
            open("/tmp/left", "w").close()
            return found
    """
    assert answer(sandbox, program) == []
    assert answer(sandbox, program) == []


def test_installed_packages_of_the_project_are_out_of_reach(sandbox: Sandbox) -> None:
    assert outcome_of(sandbox, "import torch\ndef f(): return 1").status == EXCEPTION


# --- parallel runs, levels, failures of the sandbox -----------------------------------------


def test_outcomes_come_in_the_order_of_the_jobs(sandbox: Sandbox) -> None:
    jobs = [Job(f"def f(): return {i % 2}", "f", "assert f() == 1") for i in range(8)]
    assert [o.status for o in sandbox.run_all(jobs)] == [WRONG, PASS] * 4


class Flaky(Sandbox):
    """Fails to start the first `failures` times."""

    def __init__(self, level: str, failures: int) -> None:
        super().__init__(level)
        self._right, self.failures = self._command, failures

    def _once(self, job: Job, slot: int) -> Outcome:
        self.failures -= 1
        self._command = ["/bin/false"] if self.failures >= 0 else self._right
        return super()._once(job, slot)


def test_a_sandbox_that_fails_is_retried() -> None:
    box = Flaky(RLIMITS, failures=2)
    assert outcome_of(box, "def f(): return 1").status == PASS


def test_a_sandbox_that_keeps_failing_is_infra_and_not_the_program_s_fault() -> None:
    box = Flaky(RLIMITS, failures=3)
    assert outcome_of(box, "def f(): return 2").status == INFRA


def test_a_missing_tool_is_infra_not_a_crash() -> None:
    box = Sandbox(RLIMITS)
    box._command = ["/no/such/program"]
    assert outcome_of(box, "def f(): return 1").status == INFRA


def test_without_the_minimum_level_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(levels, "missing_tool", lambda level: None if level == RLIMITS else "tool")
    with pytest.raises(PipelineError) as caught:
        Sandbox.best(UNSHARE)
    assert "bubblewrap: tool is not installed" in caught.value.problem
    assert "apt install bubblewrap" in caught.value.remedy


def test_rlimits_are_used_only_when_the_minimum_allows_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(levels, "missing_tool", lambda level: None if level == RLIMITS else "tool")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Sandbox.best(RLIMITS).level == RLIMITS


def test_the_level_in_use_is_named_with_its_weakness(monkeypatch: pytest.MonkeyPatch) -> None:
    works = {BUBBLEWRAP: "no bwrap", UNSHARE: "no unshare", RLIMITS: None}
    monkeypatch.setattr(Sandbox, "defect", lambda box: works[box.level])
    said: list[str] = []
    monkeypatch.setattr(runner, "say", said.append)
    Sandbox.best(RLIMITS, purpose="doctests run")
    (line,) = said
    assert "doctests run under rlimits (bubblewrap: no bwrap; unshare: no unshare)" in line
    assert "your files" in line


def test_rlimits_are_refused_as_root_because_a_program_could_forge_its_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(levels, "missing_tool", lambda level: None if level == RLIMITS else "tool")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(PipelineError, match="rlimits: as root, a program could write its own"):
        Sandbox.best(RLIMITS)


# --- messages between program and checker --------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
hashable = st.recursive(scalars, lambda s: st.tuples(s, s) | st.frozensets(s, max_size=3))
plain = st.recursive(
    scalars | st.sets(hashable, max_size=3),
    lambda s: (
        st.lists(s, max_size=3)
        | st.lists(s, max_size=3).map(tuple)
        | st.dictionaries(hashable, s, max_size=3)
    ),
)


@given(plain)
def test_plain_data_survives_pack_and_unpack(value: object) -> None:
    back = plain_data.unpack(json.loads(json.dumps(plain_data.pack(value))))
    assert back == value
    assert type(back) is type(value)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_no_message_can_crash_the_checker(message: object) -> None:
    with contextlib.suppress(*plain_data.UNREADABLE):  # what becomes an outcome
        plain_data.unpack(message)
