"""Time and memory of answering 164 problems with base and tuned model, beside transformers.

    python -m benchmarks.generation [--vram-gib 9] [--only NAME ...] [--small]

The exact shape of stable-code-3b with random NF4 weights and a rank-8 adapter on every linear
layer; prompts as long as HumanEval's; each answer 256 tokens, as random weights never stop. Ours
answers all of them. transformers' plain `generate` answers one prompt, part of the way, and is
scaled up. transformers' continuous batching does not know StableLM (its attention takes no paged
cache), so it gets a Llama of the same size, beside ours on that Llama, and a bounded time in which
its tokens are counted. One process a shape, under an allocator cap, and a time after which the
process is stopped. `--small` runs all of it on a CPU with a tiny model, to see that it works.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from benchmarks.generation import contenders
from benchmarks.generation.contenders import (
    GRAPHS,
    KINDS,
    LLAMA,
    OURS,
    PAGED,
    PLAIN,
    SINGLE,
    STABLE_LM,
)

DEFAULT = (
    f"{OURS}, {STABLE_LM}",
    f"{SINGLE}, {STABLE_LM}",
    f"{OURS}, {LLAMA}",
    f"{PAGED}, {LLAMA}",
)
OTHERS = (f"{PLAIN}, {STABLE_LM}", f"{PLAIN}, {LLAMA}", f"{GRAPHS}, {LLAMA}")


def main() -> None:
    """Let each contender run, print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--vram-gib", type=float, default=9.0)
    options.add_argument("--problems", type=int, default=164)
    options.add_argument("--new-tokens", type=int, default=256)
    options.add_argument("--single-tokens", type=int, default=128, help="of generate's one prompt")
    options.add_argument("--paged-s", type=float, default=30.0, help="bound, base and tuned each")
    options.add_argument("--limit-s", type=float, default=200.0, help="of one shape's process")
    options.add_argument("--only", nargs="*", choices=(*DEFAULT, *OTHERS), default=DEFAULT)
    options.add_argument("--small", action="store_true")
    options.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.kind:
        for line in run_all(given):
            print(json.dumps(line), flush=True)
        sys.stdout.flush()
        contenders.leave()
    print(f"{given.problems} problems x {given.new_tokens} new tokens, base and tuned, ", end="")
    print(f"allocator capped at {given.vram_gib} GiB\n")
    print("| how | base s | tuned s | tokens/s | peak reserved GiB | rows | note |")
    print("|---|--:|--:|--:|--:|--:|---|", flush=True)
    for kind in KINDS:
        if wanted := [name for name in given.only if name.endswith(kind)]:
            show(given, kind, wanted)


def show(given: argparse.Namespace, kind: str, wanted: list[str]) -> None:
    """Run one shape's contenders in a process of their own; a row as soon as each is done."""
    command = [sys.executable, "-m", "benchmarks.generation", *sys.argv[1:], "--kind", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watch = threading.Timer(given.limit_s, process.kill)
        watch.start()
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith('{"how"'):
                continue
            found = json.loads(line)
            wanted.remove(found["how"])
            if "base" not in found:
                print(f"| {found['how']} | | | | | | {found['note']} |", flush=True)
                continue
            tokens = 2 * given.problems * given.new_tokens
            print(
                f"| {found['how']} | {found['base']:.1f} | {found['tuned']:.1f} "
                f"| {tokens / (found['base'] + found['tuned']):,.0f} "
                f"| {found['peak']:.2f} | {found['rows']} | {found['note']} |",
                flush=True,
            )
            print(f"    {found['device']}; first tokens {found['first']}", file=sys.stderr)
        stopped = not watch.is_alive()
        watch.cancel()
    for name in wanted:
        why = f"not done after {given.limit_s:.0f} s" if stopped else "its process failed"
        print(f"| {name} | | | | | | {why} |", flush=True)


def run_all(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Seconds of base and tuned, scaled to all problems, and the peak, of one shape's contenders.

    One that fails is told with its reason, and the next goes on.
    """
    import torch

    from tasks.core.models.device import free_gpu, limit_memory

    limit_memory(torch.device("cpu" if given.small else "cuda"), given.vram_gib)
    start = time.perf_counter()
    model = contenders.tuned_model(given.small, given.kind)
    prompts = contenders.make_prompts(given.problems, int(model.config.vocab_size))
    print(f"    {given.kind} made in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    for name in given.only:
        if name.endswith(given.kind):
            free_gpu()
            try:
                yield {"how": name, **measure(given, name, model, prompts)}
            except Exception as error:  # whatever a library raises, the others still count
                traceback.print_exc()
                yield {"how": name, "note": f"failed: {str(error).splitlines()[0][:120]}"}


def measure(
    given: argparse.Namespace, name: str, model: Any, prompts: contenders.Prompts
) -> dict[str, Any]:
    """One contender, base and tuned."""
    import torch
    import transformers

    from tasks.core.models.device import peak_vram_gib, reset_peak

    answer = contenders.answerer(given, name.rpartition(",")[0], model, prompts)
    reset_peak()
    wanted = given.problems * given.new_tokens
    seconds: dict[str, float] = {}
    first: list[list[int]] = []
    notes, most = [], 0
    for who in ("base", "tuned"):
        with model.disable_adapter() if who == "base" else nullcontext():
            start = time.perf_counter()
            rows, texts = answer()
            taken = time.perf_counter() - start
        written = sum(map(len, texts))
        seconds[who] = taken * wanted / written
        first.append(list(texts[0][:8]))
        most = max(most, rows)
        if written < wanted:
            notes.append(f"{who}: {written:,} tokens in {taken:.1f} s, scaled up")
    device = "CPU" if given.small else torch.cuda.get_device_name()
    return {
        **seconds,
        "peak": peak_vram_gib(),
        "rows": most,
        "note": "; ".join(notes) or "all answered",
        "first": first,
        "device": f"{device}, torch {torch.__version__}, transformers {transformers.__version__}",
    }


if __name__ == "__main__":
    main()
