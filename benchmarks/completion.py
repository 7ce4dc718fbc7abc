"""Completion of held-out code of one repository, by base and tuned model, by fill mode and size.

    python -m benchmarks.completion FOLDER [--home HOME] [--set section.field=value ...]

Runs the profile `my_repository_cpu` on the folder and prints what the evaluation measured: with
left context alone and, where the base has infilling tokens, with the suffix (SmolLM2 has none). A
second call with the same `--home` reads the artifacts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tasks.evaluation.metrics.registry import COMPLETION_METRICS


def main() -> None:
    """One run, one table for each fill mode."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path, help="the repository")
    options.add_argument("--profile", default="my_repository_cpu")
    options.add_argument("--home", type=Path, help="for the artifacts; default: a temporary folder")
    options.add_argument("--set", action="append", default=[], metavar="section.field=value")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = given.home or Path(folder)
        changed = [f"ingest.sources[0].path={given.folder.resolve()}", *given.set]
        command = [sys.executable, "-m", "flows.cli", "run", "--profile", given.profile]
        command += [part for one in changed for part in ("--set", one)]
        done = subprocess.run(command, check=False, env=os.environ | {"FINETUNE_HOME": str(home)})
        if done.returncode:
            sys.exit(done.returncode)
        found = max((home / "artifacts" / "evaluate").glob("*/metrics.json"), key=_time)
        metrics = json.loads(found.read_bytes())["completion"]
    print(f"\nleft out: {metrics.pop('left_out')}")
    names = [metric.name for metric in COMPLETION_METRICS]
    print(f"\n| fill mode | spans | number | {' | '.join(names)} |")
    print(f"|---|---|--:|{'--:|' * len(names)}")
    for style, numbers in metrics.items():
        for size, own in {"all": numbers, **numbers["by_size"], **numbers["by_language"]}.items():
            print(f"| {style} | {size} | {own['spans']} | {' | '.join(_values(own))} |")


def _time(path: Path) -> float:
    return path.stat().st_mtime


def _values(numbers: dict[str, Any]) -> list[str]:
    """Base → tuned of every metric."""
    return [
        " → ".join(metric.scale.value(numbers[who][metric.key]) for who in ("base", "tuned"))
        for metric in COMPLETION_METRICS
    ]


if __name__ == "__main__":
    main()
