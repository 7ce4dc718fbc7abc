"""Kills a real run a hundred times at random and checks the store after each kill.

    python -m benchmarks.kills [--base FOLDER] [--kills 100] [--seed 0]

`finetune run` with a Prefect server gets SIGKILL again and again on one store. All stages are hit
equally often: each kill has a target, a stage or the start of Prefect; a setting of that stage (or
the data, for ingest) is changed, and the signal comes at a random moment after the run's record
says that the stage has begun; every second time, after its result was complete and was being
published. The stage that the record names at the kill is counted, not the target.

After each kill the sha256 of every artifact is checked, and earlier artifacts must still be the
same folders. At the end, the last settings run to completion here and in a fresh store: the outputs
must be equal. FOLDER holds a small causal language model with its tokenizer; without it, a random
one is made. Processes with different seeds can run side by side: everything that they write is in
a temporary folder, and their servers have different ports.
"""

import argparse
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks import random_model
from tasks.core.artifacts import maintenance
from tasks.core.artifacts.garbage_collection import artifacts
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.store import KEY_DIGITS, WORK, Store
from tasks.core.system.file_lock import is_locked
from tasks.core.system.home import REPOSITORY
from tests.integration import servers

# each stage with a setting of its own, so that a change of it is work for this stage
PROFILE = """hardware: {{device: cpu}}
base: {{path: {base_folder}, licence: LicenseRef-{base}}}
ingest:
  sources: [{{kind: files, name: sample, path: {data}, licence: CC0-1.0}}]
filter: {{max_function_lines: 1{filter:04}}}
prompt: {{validation_share: 0.2, test_share: 0.2, max_train_rows: 1{prompt:04}}}
tokenize:
  {{max_tokens: 512, window_tokens: 512, min_characters_per_token: 0, seed: {tokenize}}}
train: {{max_steps: 12, checkpoint_every: 3, warmup_steps: 1, batch_tokens: 512, seed: {train}}}
evaluate:
  {{humaneval_problems: 0, probe_problems: 2, samples: 1, max_new_tokens: 8, seed: {evaluate}}}
merge: {{sample_tokens: 1{merge:04}}}
"""
ROW = '{{"instruction": "Return {n}.", "output": "def value_{n}():\\n    return {n}"}}\n'
START, BETWEEN = "start of Prefect", "between stages"
TARGETS = (START, *servers.STAGES)
LOOK_S = 0.002  # between two looks at the record of a run
PORTS = 20_000  # below those that the kernel gives to connections


def main() -> None:
    """Kill runs, check the store after each, print the counts."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", type=Path)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetune-kills-") as name:
        folder = Path(name)
        if given.base is None:
            random_model.make(folder / "base", random_model.SMALL_SHAPE)
        port = _free_port(given.seed)
        with servers.server(folder, port, HOME=name, TMPDIR=name) as env:
            soak = Soak(folder, env, (given.base or folder / "base").resolve(), given.seed)
            soak.kill(given.kills)
            soak.end()
    print(f"\n{soak.kills} kills in {soak.runs} runs")
    print("| stage at the kill | kills | while publishing |\n|---|--:|--:|")
    for stage in (*TARGETS, BETWEEN):
        published = soak.where[stage, True]
        print(f"| {stage} | {soak.where[stage, False] + published} | {published} |")
    print(f"\nchecks that failed: {len(soak.faults)}")
    print("\n".join(soak.faults))
    sys.exit(bool(soak.faults))


class Soak:
    """One store whose runs are killed.

    Attributes:
        where: (stage that a killed run worked on, by its record; whether it was publishing) ->
            kills.
        faults: Checks that failed.
    """

    def __init__(self, folder: Path, env: dict[str, str], base: Path, seed: int) -> None:
        self.folder, self.base = folder, base
        self.kills = self.runs = 0
        self.where: Counter[tuple[str, bool]] = Counter()
        self.faults: list[str] = []
        self._changes = Counter(dict.fromkeys(servers.STAGES, 0))
        self._seconds: dict[tuple[str, bool], float] = {}
        self._chance = random.Random(seed)
        self._env = env
        self._previous = ""  # record before that of the running run
        self._store = Store(folder / "home" / "artifacts", DigestCache(None))
        shutil.copytree(REPOSITORY / "data/sample", folder / "data")

    def kill(self, wanted: int) -> None:
        """Measure one run, then start runs until `wanted` of them were killed."""
        process = self._start("home")
        self._follow(process, ("", False), 0)
        before = self._look({})
        while self.kills < wanted:
            round_ = [(t, p) for t in TARGETS for p in (False, True) if (t, p) in self._seconds]
            for target in self._chance.sample(round_, min(len(round_), wanted - self.kills)):
                before = self._kill_in(target, before)

    def _kill_in(self, target: tuple[str, bool], before: dict[str, int]) -> dict[str, int]:
        self._change(target[0])
        self.runs += 1
        process = self._start("home")
        self._follow(process, target, self._chance.uniform(0, self._seconds[target]))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.kills += 1
            stage, publishing = self._at()
            self.where[stage, publishing] += 1
            before = self._look(before)
            told = ", publishing" if publishing else ""
            print(f"kill {self.kills}: {stage}{told}; {len(self.faults)} faults", flush=True)
        elif process.returncode:
            self.faults.append(f"run {self.runs} ended with {process.returncode}")
        return before

    def _follow(
        self, process: subprocess.Popen[bytes], target: tuple[str, bool], delay: float
    ) -> None:
        """Watch a run until `delay` seconds after its target began, or until it has passed it.

        How long each part of a stage took is noted; the publication begins with the manifest.
        """
        at, since = (START, False), time.monotonic()
        while process.poll() is None:
            now = self._at()
            if now != at:
                self._seconds[at] = time.monotonic() - since
                if at[0] == target[0] != now[0]:
                    return
                at, since = now, time.monotonic()
            if at == target and time.monotonic() - since >= delay:
                return
            time.sleep(LOOK_S)

    def end(self) -> None:
        """Run the last settings to completion here and in a fresh store; compare the outputs."""
        for home in ("home", "fresh"):
            if self._start(home).wait():
                self.faults.append(f"the last run in {home} failed")
        made = [self._outputs(home) for home in ("home", "fresh")]
        if made[0] != made[1]:
            self.faults.append(f"outputs differ from those of an undisturbed run: {made}")
        left = [p.name for p in (self._store.root / WORK).glob("*")]
        trash = list((self._store.root / ".trash").glob("*"))
        current = {json.loads(p.read_bytes())["making"] for p in self._records("home")[-1:]}
        if trash or current != {""}:
            self.faults.append(f"left: {trash} {current}")
        print(f"unfinished work of earlier settings, which gc removes: {left}")

    def _change(self, stage: str) -> None:
        """Give a stage new work."""
        n = self._changes[stage] = self._changes[stage] + 1
        if stage == "ingest":
            with (self.folder / "data/instructions.jsonl").open("a") as data:
                data.write(ROW.format(n=n))

    def _start(self, home: str) -> subprocess.Popen[bytes]:
        self._previous = self._newest()
        profile = self.folder / "killed.yaml"
        folders = {"base_folder": self.base, "data": self.folder / "data"}
        profile.write_text(PROFILE.format(**folders, **self._changes))
        command = [sys.executable, "-m", "flows.cli", "run", "--profile", str(profile)]
        env = self._env | {"FINETUNE_HOME": str(self.folder / home)}
        with (self.folder / "runs.log").open("ab") as log:
            return subprocess.Popen(command, env=env, cwd=REPOSITORY, stdout=log, stderr=log)

    def _records(self, home: str) -> list[Path]:
        return sorted((self.folder / home / "artifacts/.runs").glob("*.json"))

    def _newest(self) -> str:
        return max((p.name for p in self._records("home")), default="")

    def _at(self, old: str = "") -> tuple[str, bool]:
        """(stage that the last run works on, whether its result is complete), by its record."""
        newest = self._newest()
        record = (
            {} if newest == old else json.loads((self._store.root / ".runs" / newest).read_bytes())
        )
        if record.get("ended", True):
            return START, False
        if not (making := record["making"]):
            return BETWEEN, False
        stage, _, key = making.rpartition("-")
        done = (self._store.root / WORK / making / "out", self._store.root / stage / key)
        return stage, any((folder / "manifest.json").exists() for folder in done)

    def _look(self, before: dict[str, int]) -> dict[str, int]:
        """Check the store; return the folders of all artifacts with their inodes."""
        for folder, problem in maintenance.verify(self._store, deep=True):
            if problem:
                self.faults.append(f"after kill {self.kills}: {folder} {problem}")
        held = [p.name for p in (self._store.root / ".locks").glob("*") if is_locked(p)]
        if held:
            self.faults.append(f"after kill {self.kills}: locks {held}")
        now = {str(p): p.stat().st_ino for p in artifacts(self._store.root)}
        if again := [path for path in before if now.get(path) != before[path]]:
            self.faults.append(f"after kill {self.kills}: produced again or missing: {again}")
        return now

    def _outputs(self, home: str) -> dict[str, dict[str, str]]:
        """Output digests of the last run in a home."""
        record = json.loads(self._records(home)[-1].read_bytes())
        root = self.folder / home / "artifacts"
        manifests = {
            s: root / s / k[:KEY_DIGITS] / "manifest.json" for s, k in record["keys"].items()
        }
        return {s: json.loads(p.read_bytes())["outputs"] for s, p in manifests.items()}


def _free_port(seed: int) -> int:
    """A port of this seed, so that two servers that start at the same time have different ones."""
    for port in range(PORTS + 16 * (seed % 700), PORTS + 16 * (seed % 700) + 16):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise OSError(f"no port is free for the seed {seed}")


if __name__ == "__main__":
    main()
