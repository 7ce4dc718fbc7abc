"""Speed of a training step on a CPU next to other programs, against its share of the CPU.

    python -m benchmarks.training.shared_cpu [--seconds 15] [--rounds 3]

A child process runs forward and backward of a random Llama of 11 M parameters on one window of 512
tokens, with as many threads as there are cores, by the wait policy that the stages set and by
OpenMP's default. In every round it runs alone, then next to `stress-ng --cpu 4` (Debian package
stress-ng) of the same priority. Its share of n cores next to 4 busy processes is n / (n + 4).
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

BUSY = 4
WINDOW_TOKENS = 512
POLICIES = {"PASSIVE, as the stages set it": "PASSIVE", "OpenMP's default": None}


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=15.0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--child", action="store_true")
    given = options.parse_args()
    if given.child:
        train()
        return
    cores = len(os.sched_getaffinity(0))
    share = cores / (cores + BUSY)
    print(f"{cores} cores, share {share:.2f}")
    print("| threads wait | alone, tokens/s | next to 4 | its share would be | reached |")
    print("|---|--:|--:|--:|--:|")
    for name, policy in POLICIES.items():
        alone, shared = measure(policy, given.seconds, given.rounds)
        fair = alone * share
        print(f"| {name} | {alone:,.0f} | {shared:,.0f} | {fair:,.0f} | {shared / fair:.2f} |")


def measure(policy: str | None, seconds: float, rounds: int) -> tuple[float, float]:
    """Median tokens/s alone and next to `BUSY` busy processes."""
    env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    env |= {"OMP_WAIT_POLICY": policy} if policy else {}
    command = [sys.executable, "-m", "benchmarks.training.shared_cpu", "--child"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()  # warm
        speeds: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            speeds[0].append(_speed(child, seconds))
            stress = ["stress-ng", "--quiet", "--cpu", str(BUSY), "--timeout", f"{2 * seconds:g}s"]
            with subprocess.Popen(stress) as busy:
                time.sleep(1)
                speeds[1].append(_speed(child, seconds))
                busy.terminate()
        child.terminate()
    return statistics.median(speeds[0]), statistics.median(speeds[1])


def _speed(child: "subprocess.Popen[str]", seconds: float) -> float:
    """Tokens per second of the steps that end within the time from now."""
    assert child.stdout is not None
    started, ends = time.monotonic(), list[float]()
    while not ends or ends[-1] < started + seconds:
        ended = float(child.stdout.readline())
        ends += [ended] if ended >= started else []
    return (len(ends) - 1) * WINDOW_TOKENS / (ends[-1] - ends[0])


def train() -> None:
    """Steps without end; a line with the time after each."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    shape = LlamaConfig(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    model = LlamaForCausalLM(shape)
    ids = torch.randint(8192, (1, WINDOW_TOKENS))
    while True:
        model(input_ids=ids, labels=ids).loss.backward()
        model.zero_grad()
        print(time.monotonic(), flush=True)


if __name__ == "__main__":
    main()
