"""SIGKILL at every step that touches the disk: nothing half is whole, nothing done twice."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.core.artifacts import maintenance
from tasks.core.artifacts.garbage_collection import artifacts, collect, find_garbage
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache import cache_key
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.store import Store
from tasks.core.system.file_lock import is_locked

KILLS_IN_A_ROW = 100


def deadly_steps(kill_at: int) -> list[int]:
    """Let this process kill itself before or after its n-th step on the disk; the count so far."""
    steps = [0]

    def step() -> None:
        steps[0] += 1
        if steps[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(function: Callable) -> Callable:
        def wrapped(*arguments, **options):
            step()
            result = function(*arguments, **options)
            step()
            return result

        return wrapped

    for owner, name in (
        (Path, "rename"),
        (Path, "replace"),
        (Path, "write_text"),
        (Path, "mkdir"),
        (Path, "unlink"),
        (os, "fsync"),
        (os, "link"),
        (os, "unlink"),
        (shutil, "rmtree"),
    ):
        setattr(owner, name, deadly(getattr(owner, name)))
    return steps


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a forked process that is killed at a step; False if it came to its end."""
    if child := os.fork():
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), status
        return status != 0
    try:
        deadly_steps(step)
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


class Victim:
    """Runs the toy pipeline in a forked process that kills itself at a chosen step."""

    def __init__(self, toy, root: Path) -> None:
        self.toy = toy
        self.root = root
        self.artifacts = root / "artifacts"
        self.log = root / "log"

    def start(self, kill_at: int = 0) -> int:
        """Id of a new process that runs the pipeline; `kill_at` 0: to its end."""
        if child := os.fork():
            return child
        try:
            self._run(kill_at)
            os._exit(0)
        except BaseException:
            os._exit(1)

    def run(self, kill_at: int = 0) -> bool:
        """Run; whether it was killed."""
        status = os.waitpid(self.start(kill_at), 0)[1]
        assert status in (0, signal.SIGKILL), status
        return status != 0

    def _run(self, kill_at: int) -> None:
        steps = deadly_steps(kill_at)
        for name in ("read", "sort", "join"):
            setattr(self.toy, name, self._logged(name, getattr(self.toy, name)))
        pipeline = self.toy.Pipeline(self.artifacts)
        pipeline.store.sweep()
        pipeline.run()
        (self.root / "steps").open("w").write(str(steps[0]))

    def _logged(self, name: str, run: Callable) -> Callable:
        def wrapped(config, inputs, work):
            summary = run(config, inputs, work)
            with self.log.open("a") as file:
                file.write(f"{name}\n")
            return summary

        return wrapped

    def steps(self) -> int:
        """How many steps a whole run takes."""
        self.run()
        return int((self.root / "steps").read_text())

    def ran(self) -> list[str]:
        """Stages whose `run` came to its end since the last call."""
        names = self.log.read_text().split() if self.log.exists() else []
        self.log.write_text("")
        return names

    def published(self) -> set[tuple[str, str]]:
        """(stage, key digits) of the artifacts in their place."""
        found = self.artifacts.glob("*/*")
        return {(p.parent.name, p.name) for p in found if len(p.name) == 12}


@pytest.fixture
def victim(toy, tmp_path):
    toy.Pipeline(tmp_path / "warm").run()  # what is imported and cached here, no child does again
    return Victim(toy, tmp_path)


def check_store(root: Path) -> None:
    damaged = [
        p for p in maintenance.verify(Store(root, DigestCache(None)), deep=True) if p[1] is not None
    ]
    assert damaged == []
    assert list((root / ".work").glob("*")) == []


def test_a_hundred_kills_in_a_row_lose_nothing_and_leave_nothing(victim, toy):
    steps = victim.steps()
    chance = random.Random(0)
    killed = attempts = 0
    while killed < KILLS_IN_A_ROW:
        words = f"pear fig apple {attempts // 3}"  # new work for every three attempts
        toy.SOURCE.write_text(words)
        killed += victim.run(chance.randint(1, steps))
        attempts += 1
        if attempts % 15 == 0:
            victim.run()
            lines = {p.read_text() for p in victim.artifacts.glob("join/*/line.txt")}
            assert " ".join(sorted(words.split())) in lines
            check_store(victim.artifacts)


def test_whatever_the_step_a_finished_stage_does_not_run_again(victim, toy):
    steps = victim.steps()
    for step in range(1, steps):
        toy.SOURCE.write_text(f"b a {step}")
        before = victim.published()
        victim.ran()
        victim.run(step)
        done = {stage for stage, _ in victim.published() - before}
        victim.ran()
        victim.run()
        assert set(victim.ran()) & done == set(), f"killed at step {step}"


def test_work_that_was_whole_when_the_process_died_is_not_repeated(victim, toy):
    steps = victim.steps()
    for step in range(1, steps):
        toy.SOURCE.write_text(f"c a {step}")
        victim.run(step)
        whole = [p.parent.name for p in victim.artifacts.glob(".work/*/out") if manifest_in(p)]
        victim.ran()
        victim.run()
        names = {name.rpartition("-")[0] for name in whole}
        assert set(victim.ran()) & names == set(), f"killed at step {step}"


def manifest_in(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def test_lock_of_a_killed_run_is_free(victim):
    victim.run(12)
    locks = list((victim.artifacts / ".locks").iterdir())
    assert locks
    assert not any(is_locked(lock) for lock in locks)


def test_twenty_processes_on_one_store_make_each_artifact_once(victim):
    running = [victim.start() for _ in range(20)]
    assert [os.waitpid(child, 0)[1] for child in running] == [0] * 20
    assert sorted(victim.ran()) == ["join", "read", "sort"]


def recorded_run(pipeline, number: int) -> None:
    """A run with its record, as the flow leaves it."""
    pipeline.run()
    cache_key = {plan.stage.name: plan.key for plan in pipeline.plan()}
    RunRecord(f"2026010{number}T000000-0001-1", "p", (), cache_key).write(pipeline.store.root)


def test_collection_killed_at_any_step_loses_nothing_kept_and_leaves_nothing(toy, tmp_path):
    toy.Pipeline(tmp_path / "warm").run()
    step = 1
    while True:
        root = tmp_path / str(step)
        pipeline = toy.Pipeline(root)
        for number, words in enumerate(("pear fig", "kiwi plum"), 1):
            toy.SOURCE.write_text(words)
            recorded_run(pipeline, number)

        def clean(pipeline=pipeline) -> None:
            garbage = find_garbage(pipeline.store, 1, 0, frozenset())
            collect(pipeline.store.root, garbage)

        killed = killed_at(step, clean)
        assert pipeline.decisions() == ["HIT", "HIT", "HIT"], f"killed at step {step}"
        assert all(
            problem is None
            for _, problem in maintenance.verify(Store(root, DigestCache(None)), deep=True)
        )
        pipeline.store.sweep()
        assert list((root / ".trash").glob("*")) == []
        clean()
        assert len(list(artifacts(root))) == 3
        if not killed:
            break
        step += 1
    assert step > 10


def test_acceptance_killed_at_any_step_is_whole_or_absent(toy, tmp_path, monkeypatch):
    toy.Pipeline(tmp_path / "warm").run()
    real = cache_key.closure
    changed = {"toy:sort": {"tasks.sorting": {"order": "new"}}}
    step, killed = 1, True
    while killed:
        pipeline = toy.Pipeline(tmp_path / str(step))
        monkeypatch.setattr(cache_key, "closure", real)
        pipeline.run()
        monkeypatch.setattr(
            cache_key, "closure", lambda run, digests, **_: changed.get(run) or real(run, digests)
        )
        plan = pipeline.plan()[1]
        killed = killed_at(step, lambda p=pipeline, plan=plan: maintenance.accept(p.store, plan))
        pipeline.store.sweep()
        assert pipeline.decisions()[0] == "HIT"
        assert pipeline.decisions()[1] in (("HIT", "RUN") if killed else ("HIT",))
        check_store(pipeline.store.root)
        step += 1
    assert step > 10
