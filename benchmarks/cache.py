"""Time of planning and of an unchanged run at scale, and of DVC on the same stages and files.

    python -m benchmarks.cache [--artifacts 1000] [--files 100] [--runs 10000] [--no-dvc]

Fills a store with artifacts (synthetic files, real keys and manifests), so that every stage of the
demo is a cache hit. Then times `finetune plan`, `finetune run` and an empty Prefect flow in fresh
processes, and the last two again in a process whose Prefect has started. DVC is installed from PyPI
into its own environment and has a repository with as many stages and files. `--folder` keeps all of
this for another measurement; `--fill-only` only prepares it.
"""

import argparse
import dataclasses
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from flows.commands.plan import WORK_TO_DO
from flows.session import Request, open_session
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache import manifest as manifests
from tasks.core.cache.cache_key import key_of
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
from tasks.core.package_version import version
from tasks.core.stage import Summary
from tasks.pipeline import PIPELINE

PROFILE = "cpu_demo"
FILE_BYTES = 1_000
BARE_FLOW = "from prefect import flow\n@flow\ndef nothing(): pass\nnothing()"
STARTED = f"""
import contextlib, io, statistics, time
from prefect import flow
from flows.cli import main

@flow
def nothing(): pass

def once(call):
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        call()
    return time.perf_counter() - start

def run():
    assert main(["run", "--profile", {PROFILE!r}]) == 0

once(nothing), once(run)
print(*(statistics.median(once(call) for _ in range(5)) for call in (nothing, run)))
"""
Row = tuple[str, float]


def main() -> None:
    """Fill the store, time the commands, print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--artifacts", type=int, default=1000)
    options.add_argument("--files", type=int, default=100)
    options.add_argument("--runs", type=int, default=10_000)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--no-dvc", action="store_true")
    options.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    options.add_argument("--fill-only", action="store_true")
    given = options.parse_args()
    temporary = tempfile.TemporaryDirectory(prefix="finetune-cache-")
    with nullcontext(given.folder) if given.folder else temporary as folder:
        root = Path(folder)
        os.environ["FINETUNE_HOME"] = str(root / "home")
        os.environ["PREFECT_HOME"] = str(root / "prefect")
        os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
        os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"
        os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
        if not (root / "home").exists():
            fill(given.files, given.artifacts, given.runs)
        if not given.no_dvc:
            prepare_dvc(root, given.files)
        if given.fill_only:
            return
        rows = [*own(given.repeats), *([] if given.no_dvc else dvc(root, given.repeats))]
    print(f"\n{given.artifacts} artifacts of {given.files} files, {given.runs} past runs, ", end="")
    print(f"{len(PIPELINE)} stages; median of {given.repeats} fresh processes; ", end="")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python ", end="")
    print(f"{platform.python_version()}, Prefect {version('prefect')}\n")
    print("| command | seconds |\n|---|---|")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.2f} |")


def own(repeats: int) -> list[Row]:
    """Seconds of `plan`, of an unchanged `run`, and of an empty Prefect flow."""
    command = [sys.executable, "-m", "flows.cli"]
    plan = [*command, "plan", "--profile", PROFILE]
    same, changed = (
        timed([*plan, *more], repeats + 2) for more in ([], ["--set", "base.licence=MIT"])
    )
    bare = timed([sys.executable, "-c", BARE_FLOW], repeats)
    run = timed([*command, "run", "--profile", PROFILE], repeats)
    output = subprocess.run(
        [sys.executable, "-c", STARTED], capture_output=True, check=True, text=True
    ).stdout
    bare_again, run_again = map(float, output.splitlines()[-1].split())
    return [
        ("`finetune plan`, no change", same),
        ("`finetune plan`, the first stage changed, so that all are checked", changed),
        ("empty Prefect flow, with the start of its embedded server", bare),
        ("`finetune run`, no change, likewise", run),
        ("empty Prefect flow, in a process whose Prefect has started", bare_again),
        ("`finetune run`, no change, likewise", run_again),
    ]


def fill(files: int, artifacts: int, runs: int) -> None:
    """Fill a store with a hit for every stage of the profile and many other artifacts and runs."""
    keys: dict[str, str] = {}
    os.fsync = lambda _: None  # flushing every file would take an hour; nothing here needs it
    with open_session(Request(PROFILE)) as session:
        for stage in PIPELINE:
            plan = session.planner.plan_stage(stage.name)
            assert plan.key is not None
            manifest = publish(session.store, stage.name, plan.key, plan.parts, files)
            session.planner.add_artifact(manifest)
            keys[stage.name] = plan.key
            for n in range(artifacts // len(PIPELINE) - 1):
                parts = {**plan.parts, "config": {**plan.parts["config"], "synthetic": n}}
                publish(session.store, stage.name, key_of(parts), parts, files)
        for n in range(runs):
            RunRecord(f"20260101T{n:06d}-0001-1", PROFILE, (), keys).write(session.store.root)


def publish(store: Store, stage: str, key: str, parts: dict[str, object], files: int) -> Manifest:
    """Publish an artifact with `files` synthetic files."""
    outputs = next(s.outputs for s in PIPELINE if s.name == stage)
    with store.working(stage, key, lambda: None) as work:
        for output in outputs:
            (work.out / output).mkdir()
        for n in range(files):
            text = f"{key} {n}\n".encode()
            path = work.out / outputs[n % len(outputs)] / f"{n}.bin"
            path.write_bytes(text * (FILE_BYTES // len(text)))
        described = manifests.describe_files(work.out)
        manifest = Manifest(
            stage=stage,
            key=key,
            parts=parts,
            outputs=manifests.output_digests(outputs, described),
            files=described,
            summary=dataclasses.asdict(Summary("synthetic")),
            seconds=1.0,
        )
        store.publish(manifest, work)
    return manifest


def timed(command: Sequence[str], repeats: int, cwd: Path | None = None) -> float:
    """Median wall seconds of a command in a fresh process, after one warm-up run."""

    def call() -> None:
        code = subprocess.run(command, capture_output=True, check=False, cwd=cwd).returncode
        assert code in (0, WORK_TO_DO), command

    return median(call, repeats)


def median(call: Callable[[], object], repeats: int) -> float:
    """Median wall seconds of a call."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def prepare_dvc(root: Path, files: int) -> None:
    """Create a DVC repository with as many stages and files, and reproduce it once."""
    folder, environment = root / "dvc", root / "dvc-env"
    if folder.exists():
        return
    if not (environment / "bin/dvc").exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([environment / "bin/pip", "install", "-q", "dvc"], check=True)
    folder.mkdir()
    write = (
        "import pathlib, sys; out = pathlib.Path(sys.argv[1]); out.mkdir(exist_ok=True); "
        f"[(out / f'{{n}}.bin').write_bytes((sys.argv[1] + str(n)).encode().ljust({FILE_BYTES}))"
        f" for n in range({files})]"
    )
    (folder / "write.py").write_text(write)
    stages, before = ["stages:"], "write.py"
    for stage in PIPELINE:
        name = stage.name
        stages += [f"  {name}:", f"    cmd: {sys.executable} write.py {name}", "    deps:"]
        stages += [f"    - {before}", "    outs:", f"    - {name}"]
        before = name
    (folder / "dvc.yaml").write_text("\n".join(stages) + "\n")
    for arguments in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        subprocess.run([environment / "bin/dvc", *arguments], cwd=folder, check=True)


def dvc(root: Path, repeats: int) -> list[Row]:
    """Seconds of `dvc status` and `dvc repro` with no change."""
    program, folder = str(root / "dvc-env/bin/dvc"), root / "dvc"
    asked = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    found = asked.stdout.strip()
    return [
        (f"`dvc status` {found}, no change, {len(PIPELINE)} artifacts and no past runs", each)
        if name == "status"
        else (f"`dvc repro` {found}, the same", each)
        for name in ("status", "repro")
        for each in [timed([program, name], repeats, folder)]
    ]


if __name__ == "__main__":
    main()
