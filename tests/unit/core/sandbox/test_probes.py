"""Each probe is refused or contained, under every level that isolates."""

import os
import socket
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.sandbox import (
    BUBBLEWRAP,
    OOM,
    PASS,
    RLIMITS,
    UNSHARE,
    WRONG,
    Job,
    Limits,
    Sandbox,
    levels,
)
from tests.unit.core.sandbox.probes import (
    CHEATS,
    ESCAPES,
    KINDS,
    Escape,
)

VARIABLE = "SECRET_OF_THE_USER"
LIMITS = Limits(memory_mib=256)
by_name = pytest.mark.parametrize("probe", ESCAPES, ids=lambda p: f"{p.kind}: {p.name}")


@pytest.fixture(scope="module", params=[BUBBLEWRAP, UNSHARE])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    box = Sandbox(request.param, LIMITS)
    if (reason := box.defect()) is not None:
        pytest.skip(f"{request.param} does not work here: {reason}")
    return box


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """Resources of the host that the probes try to reach."""
    monkeypatch.setenv(VARIABLE, "x")
    tmp_path.chmod(0o777)
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    name = f"probe{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as named,
    ):
        for listener, address in ((abstract, f"\0{name}"), (named, f"{tmp_path}/s")):
            listener.bind(address)
            listener.listen()
        (tmp_path / "s").chmod(0o777)
        yield {
            "folder": tmp_path,
            "secret": secret,
            "port": server.getsockname()[1],
            "name": name,
            "variable": VARIABLE,
            "tmp_bytes": levels.TMP_MIB << 20,
            "tmp_files": levels.TMP_FILES,
            "processes": LIMITS.processes,
            # as any other user, program and checker are one user of their own namespace
            "by_root": os.geteuid() == 0,
        }


def status_of(probe: Escape, box: Sandbox, host: dict[str, object]) -> str:
    program = probe.program.format(**host)
    return box.run(Job(program, "f", "assert f() is False", timeout_s=20)).status


@by_name
def test_an_escape_reports_that_it_failed(
    probe: Escape, sandbox: Sandbox, host: dict[str, object]
) -> None:
    assert status_of(probe, sandbox, host) == PASS
    left = {path.name for path in Path(str(host["folder"])).iterdir()}
    assert left == {"secret", "s"}


@pytest.mark.parametrize("probe", [p for p in ESCAPES if p.bites], ids=lambda p: p.name)
def test_without_a_sandbox_the_same_probe_succeeds(probe: Escape, host: dict[str, object]) -> None:
    box = Sandbox(RLIMITS, Limits(memory_mib=1 << 20))
    assert status_of(probe, box, host) == WRONG


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_does_not_pass(name: str, sandbox: Sandbox) -> None:
    job = Job(textwrap.dedent(CHEATS[name]), "f", "assert f() == 1", timeout_s=3)
    assert sandbox.run(job).status not in (PASS, "infra")


def test_unbounded_memory_is_oom(sandbox: Sandbox) -> None:
    job = Job(textwrap.dedent(CHEATS["memory until none is left"]), "f", "f()", timeout_s=20)
    assert sandbox.run(job).status == OOM


def test_every_kind_has_a_probe() -> None:
    assert {probe.kind for probe in ESCAPES} == KINDS
    assert len({probe.name for probe in ESCAPES}) + len(CHEATS) >= 70
