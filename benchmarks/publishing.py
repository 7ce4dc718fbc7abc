"""What publishing and checking a large artifact costs, in seconds and in bytes on the disk.

    python -m benchmarks.publishing [--gib 10] [--files 4]

Writes files as a stage does, publishes them, checks them quickly and in depth, and publishes them
once more under another key, as `finetune accept` does. The bytes that this process had the kernel
write (`/proc/self/io`) tell whether anything was copied.
"""

import argparse
import dataclasses
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tasks.core.artifacts import maintenance
from tasks.core.cache import manifest as manifests
from tasks.core.cache.cache_key import key_of
from tasks.core.cache.causes import Cause
from tasks.core.cache.decision import RUN, StagePlan
from tasks.core.cache.digest_cache import Memo
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
from tasks.core.stage import Stage, Summary

STAGE = Stage("merge", "nowhere:run", outputs=("model",))
CHUNK = 2**26


def main() -> None:
    """Write, publish, check, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--gib", type=float, default=10)
    options.add_argument("--files", type=int, default=4)
    options.add_argument("--folder", type=Path, help="where the disk is; default: temporary")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetune-publish-", dir=given.folder) as folder:
        rows = measure(Store(Path(folder) / "artifacts", Memo(None)), given.gib, given.files)
    print(f"\n{given.gib:g} GiB in {given.files} files, {os.cpu_count()} cores, ", end="")
    print(f"Python {platform.python_version()}\n")
    print("| what | seconds | GiB/s | GiB written | GiB more on the disk |\n|---|--:|--:|--:|--:|")
    for name, seconds, written, more in rows:
        speed = f"{given.gib / seconds:.2f}" if seconds > 0.5 else ""
        print(f"| {name} | {seconds:.2f} | {speed} | {written:.2f} | {more:.2f} |")


def measure(store: Store, gib: float, files: int) -> list[tuple[str, float, float, float]]:
    """(what, seconds, GiB written, GiB more on the disk) of each step."""
    parts = {"stage": STAGE.name, "schema": 1, "config": {}, "sources": {}, "code": {}, "env": {}}
    key, rows = key_of(parts), []

    def step(name: str, call: Callable[[], object]) -> object:
        store.root.mkdir(parents=True, exist_ok=True)
        os.sync()
        bytes_before, free_before = written(), shutil.disk_usage(store.root).free
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        os.sync()
        more = (free_before - shutil.disk_usage(store.root).free) / 2**30
        rows.append((name, seconds, (written() - bytes_before) / 2**30, more))
        return result

    with store.working(STAGE.name, key, lambda: None) as work:
        step("writing, as a stage does", lambda: write(work.out / "model", gib, files))
        described = step(
            "flush and sha256 of every file", lambda: manifests.describe_files(work.out)
        )
        manifest = Manifest(
            stage=STAGE.name,
            key=key,
            parts=parts,
            outputs=manifests.output_digests(STAGE.outputs, described),  # type: ignore[arg-type]
            files=described,  # type: ignore[arg-type]
            summary=dataclasses.asdict(Summary("made up")),
            seconds=1.0,
        )
        step("manifest and rename", lambda: store.publish(manifest, work))
    step("quick check", lambda: store.find(STAGE.name, key))
    step("`finetune verify --deep`", lambda: list(maintenance.verify(store, deep=True)))
    moved = {**parts, "env": {"torch": "another"}}
    causes = (Cause("env", "torch"),)
    plan = StagePlan(STAGE, RUN, causes, key_of(moved), moved, manifest)
    step("`finetune accept`", lambda: maintenance.accept(store, plan))
    return rows


def write(folder: Path, gib: float, files: int) -> None:
    """Files of made-up content."""
    folder.mkdir()
    block = os.urandom(CHUNK)
    for n in range(files):
        with (folder / f"{n}.bin").open("wb") as file:
            for _ in range(int(gib * 2**30 / files) // CHUNK):
                file.write(block)


def written() -> int:
    """Bytes that this process has caused to be written to disks so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


if __name__ == "__main__":
    main()
