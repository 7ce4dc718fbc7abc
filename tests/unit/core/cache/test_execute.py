"""How a stage is run: its log, its pauses, and that a failure is not tried again."""

from datetime import datetime, timedelta

import pytest

from tasks.core.cache import execute
from tasks.core.errors import StageError, StopError
from tasks.core.progress import say, sink
from tasks.core.settings.config import check
from tasks.core.system import gpu_lock
from tests.unit.core.conftest import Messages

QUIET = {"hardware": {"device": "cpu", "quiet_hours": "08:00-18:00"}}


@pytest.fixture
def one(toy, pipeline):
    """The toy pipeline with one stage on the GPU, whose work a test gives."""

    def use(work):
        toy.work = work
        toy.STAGES = (toy.Stage("only", "toy:work", outputs=("x",), gpu=True),)
        return pipeline

    return use


def test_what_a_stage_said_lies_in_its_artifact_and_is_passed_on(one, toy):
    def work(config, inputs, work):
        say("half of it is done")
        (work.out / "x.txt").write_text("x")
        return toy.Summary("done")

    pipeline = one(work)
    told = Messages()
    with sink(told):
        pipeline.run()
    (plan,) = pipeline.plan()
    log = pipeline.store.entry(plan.manifest, "log")
    assert "half of it is done" in log.read_text()
    assert told.lines == ["half of it is done"]
    assert list((pipeline.store.root / ".logs").iterdir()) == []


def test_a_stage_that_ran_out_of_memory_is_not_run_again(one):
    runs = []

    def work(config, inputs, work):
        runs.append(1)
        raise MemoryError("CUDA out of memory")

    with pytest.raises(StageError, match="out of memory"):
        one(work).run()
    assert runs == [1]


def test_a_training_that_pauses_for_quiet_hours_goes_on_after_them(one, toy, monkeypatch):
    day = datetime(2026, 3, 5, 18)
    quiet = iter([None, day, day, None])  # before it begins; when it stopped; twice while waiting
    monkeypatch.setattr(execute, "quiet_now", lambda _: next(quiet))
    monkeypatch.setattr(gpu_lock, "quiet_now", lambda _: next(quiet))
    monkeypatch.setattr(gpu_lock, "POLL_S", 0)
    runs = []

    def work(config, inputs, work):
        runs.append(1)
        if len(runs) == 1:
            raise StopError("training was stopped at step 3 of 9", "Run again.")
        (work.out / "x.txt").write_text("x")
        return toy.Summary("done")

    told = Messages()
    with sink(told):
        assert one(work).run(check(QUIET)) == []
    assert runs == [1, 1]
    assert told.lines == ["quiet hours (08:00-18:00): continuing at 18:00"]


def test_a_stop_that_was_asked_for_ends_the_run(one, monkeypatch):
    def work(config, inputs, work):
        raise StopError("training was stopped at step 3 of 9", "Run again.")

    monkeypatch.setattr(execute, "quiet_now", lambda _: None)
    monkeypatch.setattr(gpu_lock, "quiet_now", lambda _: None)
    with pytest.raises(StopError):
        one(work).run(check(QUIET))


def test_waiting_is_not_counted_as_running(one, toy, monkeypatch):
    def work(config, inputs, work):
        (work.out / "x.txt").write_text("x")
        return toy.Summary("done")

    until = datetime.now() + timedelta(seconds=1.5)
    monkeypatch.setattr(gpu_lock, "POLL_S", 0.1)
    monkeypatch.setattr(gpu_lock, "quiet_now", lambda _: until if datetime.now() < until else None)
    pipeline = one(work)
    pipeline.run(check(QUIET))
    assert pipeline.plan(check(QUIET))[0].manifest.seconds < 1
