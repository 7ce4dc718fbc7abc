"""Peak memory of every stage at the shape of stable-code-3b, through the stages' own code.

    python -m benchmarks.memory_3b [--vram-gib 9.0] [--steps 20] [--set section.field=value ...]

Writes a model with random weights (see `benchmarks.random_model`), runs the pipeline of profile
stable_code_3b_10gb without Prefect, and prints a table. Needs a CUDA GPU
and 25 GB of disk.
"""

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks import random_model
from flows import messages
from flows.session import Request, open_session
from tasks.core import progress
from tasks.core.cache.decision import HIT
from tasks.core.cache.execute import RunContext, execute
from tasks.core.cache.manifest import Manifest

COLUMNS = ("stage", "seconds", "peak VRAM reserved GiB", "peak RAM GiB", "result")


class Lines:
    """Prints messages, and progress in tenths."""

    def __init__(self) -> None:
        self._shown: dict[str, int] = {}

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """Print every tenth of the work."""
        tenth = int(10 * done / total) if total else 0
        if self._shown.get(label) != tenth:
            self._shown[label] = tenth
            print(f"    {label} {done:g}/{total or 0:g} {note}", flush=True)

    def message(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)


def main() -> None:
    """Run and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--vram-gib", type=float, default=9.0)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--set", action="append", default=[], dest="overrides")
    options.add_argument("--home", type=Path)
    given = options.parse_args()
    home = given.home or Path(tempfile.mkdtemp(prefix="finetune-3b-"))
    os.environ["FINETUNE_HOME"] = str(home)
    random_model.make(home / "data" / "model")
    overrides = [
        "base.path=data/model",
        "base.licence=Apache-2.0",
        "ingest.sources=[{kind: packages, names: [python]}]",
        f"train.max_steps={given.steps}",
        f"train.warmup_steps={given.steps // 4}",
        f"hardware.vram_gib={given.vram_gib}",
        *given.overrides,
    ]
    with progress.sink(Lines()):
        made = run(Request("stable_code_3b_10gb", overrides))
    print_table(made, given.vram_gib)


def run(request: Request, until: str | None = None) -> list[Manifest]:
    """Run the pipeline without Prefect, up to a stage or to its end; manifests in order."""
    made = []
    with open_session(request) as session:
        planner = session.planner
        for name in planner.selected:
            plan = planner.plan_stage(name)
            manifest = plan.manifest
            if plan.decision != HIT or manifest is None:
                print(messages.starting(plan), flush=True)
                manifest = execute(
                    plan, RunContext(session.config, session.store, planner.artifacts)
                )
            planner.add_artifact(manifest)
            made.append(manifest)
            print(messages.finished(plan, manifest, ""), flush=True)
            if name == until:
                break
    return made


def print_table(made: list[Manifest], vram_gib: float) -> None:
    """Print a Markdown table of each stage's resources, with the device and the versions."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    cap = f"allocator capped at {vram_gib} GiB" if vram_gib else "no cap"
    print(f"\n{device}, {cap}, torch {torch.__version__}, ", end="")
    print(f"Python {sys.version.split()[0]}\n")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for m in made:
        metrics = m.summary["metrics"]
        cells = [
            m.stage,
            f"{m.seconds:.1f}",
            _gib(metrics.get("peak_vram_gib")),
            _gib(m.made["peak_rss_gib"]),
            m.summary["line"],
        ]
        print("| " + " | ".join(cells) + " |")


def _gib(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
