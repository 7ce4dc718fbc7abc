"""A real run killed a hundred times at random moments: what is left, and whether it ends as one
that was never killed.

    python -m benchmarks.kills --base FOLDER [--kills 100]

`finetune run` on the sample data, with a Prefect server beside it, gets SIGKILL after a random
time, again and again on one store; where a run comes to its end before that, its settings are
changed, so that there is work again. After each kill every artifact is checked in depth, and
artifacts that were there before must be the same folders still. In the end the last settings run
through, and once in a store of their own: the outputs must be equal. FOLDER holds a small causal
language model with its tokenizer.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tasks.core.artifacts import maintenance
from tasks.core.artifacts.garbage_collection import artifacts
from tasks.core.cache.digest_cache import Memo
from tasks.core.cache.store import Store
from tasks.core.system.file_lock import is_locked
from tasks.core.system.home import REPOSITORY
from tests.integration import servers

PROFILE = """hardware: {{device: cpu}}
base: {{path: {base}, licence: Apache-2.0}}
ingest:
  sources: [{{kind: files, name: sample, path: {sample}, licence: CC0-1.0}}]
prompt: {{validation_share: 0.2, test_share: 0.2}}
tokenize: {{max_tokens: 512, window_tokens: 512, min_characters_per_token: 0}}
train: {{max_steps: 12, checkpoint_every: 3, warmup_steps: 1, batch_tokens: 512, seed: {seed}}}
evaluate: {{humaneval_problems: 0, probe_problems: 2, samples: 1, max_new_tokens: 8}}
"""
LONGEST_S = 45.0


def main() -> None:
    """Kill, look, kill again; print what was seen."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", type=Path, required=True)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="finetune-kills-") as folder,
        servers.server(Path(folder)) as env,
    ):
        soak = Soak(Path(folder), env, given.base.resolve(), given.seed)
        soak.kill(given.kills)
        soak.end()
    print(f"\n{soak.kills} kills in {soak.runs} runs, {soak.settings} settings")
    print("| what was going on | kills |\n|---|--:|")
    for stage, count in soak.where.most_common():
        print(f"| {stage} | {count} |")
    print(f"\nchecks that failed: {len(soak.faults)}")
    print("\n".join(soak.faults))
    sys.exit(bool(soak.faults))


class Soak:
    """One store that is killed on.

    Attributes:
        where: What the last record of a killed run said that it was making -> kills.
        faults: What should not have been.
    """

    def __init__(self, folder: Path, env: dict[str, str], base: Path, seed: int) -> None:
        self.folder, self.base = folder, base
        self.kills = self.runs = 0
        self.settings = 1
        self.where: Counter[str] = Counter()
        self.faults: list[str] = []
        self._chance = random.Random(seed)
        self._env = env
        self._store = Store(folder / "home" / "artifacts", Memo(None))

    def kill(self, wanted: int) -> None:
        """Start runs and kill them until so many were killed."""
        before: dict[str, int] = {}
        while self.kills < wanted:
            self.runs += 1
            process = self._start("home")
            try:
                process.wait(self._chance.uniform(0, LONGEST_S))
                if process.returncode:
                    self.faults.append(f"run {self.runs} ended with {process.returncode}")
                self.settings += 1
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                self.kills += 1
                self.where[self._making()] += 1
            before = self._look(before)

    def end(self) -> None:
        """Let the last settings run through here and in a fresh store, and compare."""
        for home in ("home", "fresh"):
            if self._start(home).wait():
                self.faults.append(f"the last run in {home} failed")
        made = [self._outputs(home) for home in ("home", "fresh")]
        if made[0] != made[1]:
            self.faults.append(f"outputs differ from those of a run never killed: {made}")
        left = [p.name for p in (self._store.root / ".work").glob("*")]
        trash = list((self._store.root / ".trash").glob("*"))
        current = {json.loads(p.read_bytes())["making"] for p in self._records("home")[-1:]}
        if trash or current != {""}:
            self.faults.append(f"left: {trash} {current}")
        print(f"half-done work of settings that were given up, for gc: {left}")

    def _start(self, home: str) -> subprocess.Popen[bytes]:
        profile = self.folder / "killed.yaml"
        sample = REPOSITORY / "data/sample"
        profile.write_text(PROFILE.format(base=self.base, sample=sample, seed=self.settings))
        command = [sys.executable, "-m", "flows.cli", "run", "--profile", str(profile)]
        env = self._env | {"FINETUNE_HOME": str(self.folder / home)}
        with (self.folder / "runs.log").open("ab") as log:
            return subprocess.Popen(command, env=env, cwd=REPOSITORY, stdout=log, stderr=log)

    def _records(self, home: str) -> list[Path]:
        return sorted((self.folder / home / "artifacts/.runs").glob("*.json"))

    def _making(self) -> str:
        """What the killed run was at, by its own record."""
        record = json.loads(self._records("home")[-1].read_bytes()) if self._records("home") else {}
        if record.get("ended", True):
            return "starting Prefect"
        return str(record["making"]).rpartition("-")[0] or "between stages"

    def _look(self, before: dict[str, int]) -> dict[str, int]:
        """Check the store; folders of all artifacts with their inodes."""
        for folder, problem in maintenance.verify(self._store, deep=True):
            if problem:
                self.faults.append(f"after kill {self.kills}: {folder} {problem}")
        held = [p.name for p in (self._store.root / ".locks").glob("*") if is_locked(p)]
        if held:
            self.faults.append(f"after kill {self.kills}: locks {held}")
        now = {str(p): p.stat().st_ino for p in artifacts(self._store.root)}
        if again := [path for path in before if now.get(path) != before[path]]:
            self.faults.append(f"after kill {self.kills}: made again or gone: {again}")
        return now

    def _outputs(self, home: str) -> dict[str, dict[str, str]]:
        """Outputs of the last run in a home."""
        record = json.loads(self._records(home)[-1].read_bytes())
        root = self.folder / home / "artifacts"
        manifests = {s: root / s / k[:12] / "manifest.json" for s, k in record["keys"].items()}
        return {s: json.loads(p.read_bytes())["outputs"] for s, p in manifests.items()}


if __name__ == "__main__":
    main()
