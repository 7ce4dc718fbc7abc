"""Our training step, the original recipe and TRL's SFTTrainer on the same rows, in one table.

    python -m benchmarks.training.side_by_side [--vram-gib 9] [--trl-python PYTHON] [--trl-site DIR]

Each runs in a process of its own under the same allocator cap, at the shape of stable-code-3b with
the recipe's adapter, on the same rows in the same order, at the same tokens an optimizer step. TRL
has an environment of its own: another interpreter, or a folder of packages put before ours. Needs a
CUDA GPU; `--smoke` runs a tiny model on the CPU, which only shows that the command works.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

NAMES = ("ours", "recipe", "trl")
TITLES = {
    "ours": "ours",
    "recipe": "original recipe (Trainer, row by row)",
    "trl": "TRL SFTTrainer, packed (bfd)",
}
MARK = "result "
# optimizer steps that warm up and that are timed; batches whose GPU time is taken
STEPS = {"ours": (4, 12, 0), "recipe": (1, 1, 8), "trl": (2, 4, 4)}


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run one of the three in this process."""
    import torch

    from benchmarks.training import peers, shape, speed
    from tasks.core.models.device import limit_memory

    device = torch.device("cpu" if given.smoke else "cuda")
    limit_memory(device, given.vram_gib)
    small = shape.SMALL if given.smoke else {}
    warm, timed, profiled = STEPS[name]
    if name == "ours":
        count = given.batch_tokens // given.window_tokens
        variant = speed.Variant("", "fast", given.window_tokens, count, None, timed)
        return speed.run_ours(variant, *speed.tuned("stablelm", small), given.vram_gib)
    model = shape.make_model(device=str(device), changes=small)
    meter = peers.Meter(warm, timed, profiled)
    steps = peers.rows_of(given.batch_tokens, warm + timed + 2, given.window_tokens)
    if given.smoke:
        steps = [[[i % 96 for i in row[:60]] for row in rows[:4]] for rows in steps]
    if name == "recipe":
        return peers.run_recipe(model, steps, meter)
    return peers.run_trl(model, steps, meter, 240 if given.smoke else given.window_tokens)


def run_apart(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run one of the three in a process of its own; {"error": ...} where it fails."""
    python, path = sys.executable, [os.getcwd(), os.environ.get("PYTHONPATH", "")]  # noqa: PTH109
    if name == "trl":
        python = given.trl_python
        path = [given.trl_site, *path] if given.trl_site else path
    line = [python, "-m", "benchmarks.training.side_by_side", *sys.argv[1:], "--run", name]
    known = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    done = subprocess.run(line, env=known, capture_output=True, text=True, check=False)
    for text in done.stdout.splitlines():
        if text.startswith(MARK):
            return json.loads(text.removeprefix(MARK))  # type: ignore[no-any-return]
    return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}


def table(results: dict[str, dict[str, Any]]) -> str:
    """A Markdown table; ratios against each of the others."""
    ours = results.get("ours", {}).get("tokens/s")
    lines = [
        "| | tokens a step | real tokens/s | GPU-busy ms per 4,096 | peak GiB | reserved GiB "
        "| ours is faster by |",
        "|---" * 7 + "|",
    ]
    for name, found in results.items():
        if "error" in found:
            lines.append(f"| {TITLES[name]} | {found['error']} | | | | | |")
            continue
        ratio = f"{ours / found['tokens/s']:.1f}x" if ours and name != "ours" else ""
        title = TITLES[name] + (f" {found['version']}" if "version" in found else "")
        lines.append(
            f"| {title} | {found['tokens a step']:,.0f} | {found['tokens/s']:,.0f} "
            f"| {found['busy ms']:,.1f} | {found['allocated']:.2f} | {found['reserved']:.2f} "
            f"| {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run all three, or one where a parent asks for it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--vram-gib", type=float, default=9.0)
    options.add_argument("--batch-tokens", type=int, default=16_384)
    options.add_argument("--window-tokens", type=int, default=4096)
    options.add_argument("--trl-python", default=sys.executable)
    options.add_argument("--trl-site", default="")
    options.add_argument("--only", nargs="*", default=list(NAMES), choices=NAMES)
    options.add_argument("--smoke", action="store_true")
    options.add_argument("--run", choices=NAMES)
    given = options.parse_args()
    if given.run:
        result = measure(given.run, given)
        result.pop("kernels", None)
        sys.stdout.write(f"\n{MARK}{json.dumps(result)}\n")
        return
    results = {}
    for name in given.only:
        results[name] = run_apart(name, given)
        print(f"{name}: {results[name]}", flush=True)
    import torch
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU (smoke)"
    print(
        f"\n{device}, torch {torch.__version__}, transformers {transformers.__version__}, ", end=""
    )
    print(f"allocator capped at {given.vram_gib} GiB\n\n{table(results)}")


if __name__ == "__main__":
    main()
