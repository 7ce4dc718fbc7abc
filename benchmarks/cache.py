"""What planning and an unchanged run cost, at scale, beside DVC on the same stages and files.

    python -m benchmarks.cache [--artifacts 1000] [--files 100] [--runs 10000] [--no-dvc]

Fills a store with artifacts (their content is made up, their keys and manifests are real), so that
every stage of the demo is a hit, then times `finetune plan`, `finetune run` and a bare Prefect flow
in fresh processes. DVC is installed from PyPI into an environment of its own and gets as many
stages and files in a repository of its own.
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flows.session import Request, open_session
from tasks.core import manifest as manifests
from tasks.core.keys import key_of
from tasks.core.manifest import Manifest
from tasks.core.runs import RunRecord
from tasks.core.stage import Summary
from tasks.core.store import Store
from tasks.pipeline import PIPELINE

PROFILE = "cpu_demo"
FILE_BYTES = 10_000
BARE_FLOW = "from prefect import flow\n@flow\ndef nothing(): pass\nnothing()"


def main() -> None:
    """Fill, time, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--artifacts", type=int, default=1000)
    options.add_argument("--files", type=int, default=100)
    options.add_argument("--runs", type=int, default=10_000)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--no-dvc", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetune-cache-") as folder:
        root = Path(folder)
        os.environ["FINETUNE_HOME"] = str(root / "home")
        os.environ["PREFECT_HOME"] = str(root / "prefect")
        os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
        os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"
        fill(given.files, given.artifacts, given.runs)
        command = [sys.executable, "-m", "flows.cli"]
        rows = [
            (
                "finetune plan, no change",
                timed([*command, "plan", "--profile", PROFILE], given.repeats),
            ),
            ("bare Prefect flow", timed([sys.executable, "-c", BARE_FLOW], given.repeats)),
            (
                "finetune run, no change",
                timed([*command, "run", "--profile", PROFILE], given.repeats),
            ),
        ]
        if not given.no_dvc:
            rows += dvc(root / "dvc", given.files, given.repeats)
    print(f"\n{given.artifacts} artifacts of {given.files} files, {given.runs} past runs, ", end="")
    print(f"{len(PIPELINE)} stages; median of {given.repeats} fresh processes\n")
    print("| what | seconds |\n|---|---|")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.2f} |")


def fill(files: int, artifacts: int, runs: int) -> None:
    """A store in which every stage of the profile is a hit, among many other artifacts and runs."""
    keys: dict[str, str] = {}
    with open_session(Request(PROFILE)) as session:
        for stage in PIPELINE:
            plan = session.planner.decide(stage.name)
            assert plan.key is not None
            manifest = publish(session.store, stage.name, plan.key, plan.parts, files)
            session.planner.made(manifest)
            keys[stage.name] = plan.key
            for n in range(artifacts // len(PIPELINE) - 1):
                parts = {**plan.parts, "config": {**plan.parts["config"], "made.up": n}}
                publish(session.store, stage.name, key_of(parts), parts, files)
        for n in range(runs):
            RunRecord(f"20260101T{n:06d}-1", PROFILE, (), keys).write(session.store.root)


def publish(store: Store, stage: str, key: str, parts: dict[str, object], files: int) -> Manifest:
    """One artifact with `files` files of made-up content."""
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
            summary=dataclasses.asdict(Summary("made up")),
            seconds=1.0,
        )
        store.publish(manifest, work)
    return manifest


def timed(command: Sequence[str], repeats: int, cwd: Path | None = None) -> float:
    """Median wall seconds of a command in a fresh process; the first, warming run is left out."""
    return median(
        lambda: subprocess.run(command, capture_output=True, check=True, cwd=cwd), repeats
    )


def median(call: Callable[[], object], repeats: int) -> float:
    """Median wall seconds of a call."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def dvc(folder: Path, files: int, repeats: int) -> list[tuple[str, float]]:
    """As many stages and files under DVC: `dvc status` and `dvc repro` with no change."""
    environment = folder.with_name("dvc-env")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin/pip", "install", "-q", "dvc"], check=True)
    program = str(environment / "bin/dvc")
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
    subprocess.run([program, "init", "--no-scm", "-q"], cwd=folder, check=True)
    subprocess.run([program, "repro", "-q"], cwd=folder, check=True)
    return [
        (
            "dvc status, no change (its own artifacts only)",
            timed([program, "status"], repeats, folder),
        ),
        ("dvc repro, no change", timed([program, "repro"], repeats, folder)),
    ]


if __name__ == "__main__":
    main()
