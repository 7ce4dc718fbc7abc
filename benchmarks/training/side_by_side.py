"""Our training step, the original recipe, TRL and unsloth on the same rows, in one table.

    python -m benchmarks.training.side_by_side [--vram-gib 9] [--peer-site DIR]

Each implementation runs in its own process under the same allocator cap, at the shape of
stable-code-3b with the recipe's adapter, on the same rows in the same order, with the same tokens
per optimizer step. unsloth runs once per window length, without dropout, because both make it
faster. `--peer-site` is a folder of packages for TRL and unsloth that comes first on their path.
Needs a CUDA GPU; `--smoke` runs a tiny model on the CPU, which only shows that the command works.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

NAMES = ("ours", "recipe", "trl", "unsloth")
TITLES = {
    "ours": "finetune",
    "recipe": "original recipe (Trainer, row by row)",
    "trl": "TRL SFTTrainer, packed (bfd)",
    "unsloth": "unsloth, packed",
}
MARK = "result "
# optimizer steps that warm up and that are timed; batches whose GPU time is taken
STEPS = {"ours": (4, 12, 0), "recipe": (1, 1, 8), "trl": (2, 4, 4), "unsloth": (3, 6, 4)}


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run one implementation in this process."""
    if name == "unsloth":
        import unsloth  # noqa: F401  # it has to patch transformers before others import it
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
        return speed.run_ours(variant, *speed.tuned(given.family, small), given.vram_gib)
    meter = peers.Meter(warm, timed, profiled)
    steps = peers.rows_of(given.batch_tokens, warm + timed + 2, given.window_tokens)
    if name == "unsloth":
        return peers.run_unsloth(given.family, steps, meter, given.window_tokens)
    model = shape.make_model(given.family, device=str(device), changes=small)
    if given.smoke:
        steps = [[[i % 96 for i in row[:60]] for row in rows[:4]] for rows in steps]
    if name == "recipe":
        return peers.run_recipe(model, steps, meter)
    return peers.run_trl(model, steps, meter, 240 if given.smoke else given.window_tokens)


def run_apart(name: str, window: int, given: argparse.Namespace) -> dict[str, Any]:
    """Run one implementation in its own process; {"error": ...} where it fails."""
    path = [os.getcwd(), os.environ.get("PYTHONPATH", "")]  # noqa: PTH109
    if name in ("trl", "unsloth") and given.peer_site:
        path.insert(0, given.peer_site)
    line = [sys.executable, "-m", "benchmarks.training.side_by_side", *sys.argv[1:]]
    line += ["--window-tokens", str(window), "--run", name]
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
            lines.append(f"| {name} | {found['error']} | | | | | |")
            continue
        ratio = f"{ours / found['tokens/s']:.1f}x" if ours and name != "ours" else ""
        title = TITLES[name.partition(" ")[0]] + f" in windows of {found['window']:,}"
        title += f" ({found['version']})" if "version" in found else ""
        lines.append(
            f"| {title} | {found['tokens a step']:,.0f} | {found['tokens/s']:,.0f} "
            f"| {found['busy ms']:,.1f} | {found['allocated']:.2f} | {found['reserved']:.2f} "
            f"| {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run all of them, each in a child process; with `--run`, one of them in this process."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--vram-gib", type=float, default=9.0)
    options.add_argument("--batch-tokens", type=int, default=16_384)
    options.add_argument("--window-tokens", type=int, default=4096)
    options.add_argument("--unsloth-windows", type=int, nargs="*", default=[2048, 4096, 8192])
    options.add_argument("--peer-site", default="", help="folder of packages for TRL and unsloth")
    options.add_argument("--family", default="stablelm", choices=("stablelm", "llama"))
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
        windows = given.unsloth_windows if name == "unsloth" else [given.window_tokens]
        for window in windows:
            label = f"{name} {window}" if name == "unsloth" else name
            results[label] = run_apart(name, window, given) | {"window": window}
            print(f"{label}: {results[label]}", flush=True)
    import torch
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU (smoke)"
    print(
        f"\n{device}, torch {torch.__version__}, transformers {transformers.__version__}, ", end=""
    )
    print(f"allocator capped at {given.vram_gib} GiB\n\n{table(results)}")


if __name__ == "__main__":
    main()
