"""Progress on a run's page: a bar for long work, which ends where the work is."""

import pytest

from flows.orchestration import progress_sinks


@pytest.fixture
def bars(monkeypatch):
    """What was shown: (key or id, percent), in order."""
    shown = []

    def create(percent, key, description):
        shown.append((key, percent))
        return key

    monkeypatch.setattr(progress_sinks, "create_progress_artifact", create)
    monkeypatch.setattr(
        progress_sinks,
        "update_progress_artifact",
        lambda bar, percent, description: shown.append((bar, percent)),
    )
    return shown


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress_sinks.time, "monotonic", lambda: now[0])
    return now


def test_short_work_gets_no_bar(bars, clock):
    sink = progress_sinks.LogSink()
    sink.update("rows", 1, 2, "")
    sink.update("rows", 2, 2, "")
    sink.message("done")
    assert bars == []


def test_a_bar_says_how_far_the_work_is_and_how_it_goes(clock, monkeypatch):
    texts = []
    monkeypatch.setattr(
        progress_sinks,
        "create_progress_artifact",
        lambda percent, key, description: texts.append(description),
    )
    sink = progress_sinks.LogSink()
    for step in (0, 4):
        clock[0] = step
        sink.update("train", step, 10, "loss 1.2")
    assert texts == ["train 4/10 · loss 1.2"]


def test_a_bar_moves_now_and_then_and_ends_where_the_work_is(bars, clock):
    sink = progress_sinks.LogSink()
    for step in range(11):
        clock[0] = step
        sink.update("Loss, new code", step, 10, "loss 1")
    sink.message("done")
    assert bars == [
        ("progress-loss-new-code", 30.0),
        ("progress-loss-new-code", 60.0),
        ("progress-loss-new-code", 90.0),
        ("progress-loss-new-code", 100.0),
    ]
