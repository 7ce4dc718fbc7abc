"""A run that was killed ends as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.errors import PipelineError, StopError, TimeLimitError
from tasks.core.system.gpu_lock import time_limit
from tasks.training import checkpoints
from tasks.training.report.metrics_log import read_metrics

SCRIPT = """
import os, pathlib, signal, sys
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.training import STAGE
from tasks.training.loop import Loop

root, base, step = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
update = Loop._update
def killed(self, at):
    if at == step:
        os.kill(os.getpid(), signal.SIGKILL)
    update(self, at)
Loop._update = killed
inputs = {f"tokenize.{s}": root / "data-False" / s for s in ("train", "validation")}
inputs |= {"base.weights": base, "base.tokenizer": base}
work = Work(root / "killed" / "out", root / "killed" / "scratch")
work.out.mkdir(parents=True); work.scratch.mkdir(parents=True)
import json
config = check(json.loads(sys.argv[4]))
STAGE.load_run()(View(config, STAGE.reads, STAGE.name), inputs, work)
"""


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in x.items() if k not in ("seconds", "tokens_per_s")} for x in lines]


def test_a_killed_run_ends_with_the_same_adapter_and_losses(
    run_stage: Any, tmp_path: Path, bases: dict[str, Path]
) -> None:
    changes = {"lora_dropout": 0.2, "checkpoint_every": 5, "max_steps": 11, "batch_rows": 3}
    _, whole = run_stage("whole", **changes)
    from tests.unit.training.conftest import SETTINGS

    config = json.dumps({"train": SETTINGS | changes, "hardware": {"device": "cpu"}})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(bases["llama"]), "7", config],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    assert read_metrics(tmp_path / "killed/scratch/metrics.jsonl")[-1]["step"] == 6
    _, resumed = run_stage("killed", **changes)
    facts = json.loads((resumed.out / "training.json").read_text())
    assert facts["resumed_from"] == 5
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        a, b = whole.out / "adapter" / name, resumed.out / "adapter" / name
        assert a.read_bytes() == b.read_bytes()
    assert without_times(read_metrics(whole.out / "metrics.jsonl")) == without_times(
        read_metrics(resumed.out / "metrics.jsonl")
    )


def test_a_run_cut_off_at_any_step_ends_with_the_same_adapter(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.training.loop import Loop

    changes = {"lora_dropout": 0.2, "checkpoint_every": 2, "max_steps": 5}
    name = "adapter/adapter_model.safetensors"
    _, whole = run_stage("whole", **changes)
    update = Loop._update
    for cut in range(5):

        def die(self: Loop, step: int, cut: int = cut) -> None:
            if step == cut:
                raise KeyboardInterrupt
            update(self, step)

        monkeypatch.setattr(Loop, "_update", die)
        with pytest.raises(KeyboardInterrupt):
            run_stage(f"cut-{cut}", **changes)
        monkeypatch.setattr(Loop, "_update", update)
        _, resumed = run_stage(f"cut-{cut}", **changes)
        assert (resumed.out / name).read_bytes() == (whole.out / name).read_bytes(), cut


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGALRM])
def test_a_signal_writes_a_checkpoint_and_says_where_it_stopped(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch, asked: signal.Signals
) -> None:
    from tasks.training.loop import Loop

    update = Loop._update

    def ask(self: Loop, step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), asked)
        update(self, step)

    monkeypatch.setattr(Loop, "_update", ask)
    before = signal.getsignal(asked)
    with pytest.raises(PipelineError, match="stopped at step 3 of 12"):
        run_stage("stopped")
    assert signal.getsignal(asked) is before
    monkeypatch.undo()
    _, work = run_stage("stopped")
    assert '"resumed_from": 3' in (work.out / "training.json").read_text()


def test_time_limit_of_the_stage_leaves_a_checkpoint_and_is_named_as_the_reason(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tasks.training.loop import Loop

    update = Loop._update
    begun = time.monotonic()

    def wait(self: Loop, step: int) -> None:
        if step == 2:  # until the limit has passed; it is long enough to get here
            time.sleep(max(0, begun + 6.5 - time.monotonic()))
        update(self, step)

    monkeypatch.setattr(Loop, "_update", wait)
    reason = (
        r"longer than hardware\.stage_minutes, 0\.1: training was stopped at step 3 of 12\n.*res"
    )
    with pytest.raises(TimeLimitError, match=reason), time_limit("train", 0.1, tmp_path):
        run_stage("stopped")
    monkeypatch.undo()
    _, work = run_stage("stopped")
    assert '"resumed_from": 3' in (work.out / "training.json").read_text()


def test_a_second_ctrl_c_does_not_wait_for_the_step() -> None:
    from tasks.training.signals import stop_on_signals

    with pytest.raises(KeyboardInterrupt), stop_on_signals() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request()
        os.kill(os.getpid(), signal.SIGINT)


def test_quiet_hours_stop_the_training_at_a_checkpoint(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.training import signals

    asked: list[str | None] = []

    def quiet(hours: str | None) -> datetime | None:
        asked.append(hours)
        return datetime(2026, 3, 5, 18) if len(asked) > 4 else None

    monkeypatch.setattr(signals, "quiet_now", quiet)
    with pytest.raises(StopError, match="stopped at step 5 of 12"):
        run_stage("paused")
    monkeypatch.undo()
    _, work = run_stage("paused")
    assert '"resumed_from": 5' in (work.out / "training.json").read_text()


def test_a_checkpoint_is_due_after_its_minutes(run_stage: Any) -> None:
    _, work = run_stage(max_steps=3, checkpoint_minutes=1e-6)
    names = [p.name for p in sorted((work.scratch / "checkpoints").iterdir())]
    assert names == ["step-00000002", "step-00000003"]


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoints.save(tmp_path, step, {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000010"]
    assert checkpoints.load_newest(tmp_path) == {"step": 10}


def test_a_checkpoint_cut_short_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(tmp_path, 1, {"step": 1})

    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, 2, {"step": 2})
    assert checkpoints.load_newest(tmp_path) == {"step": 1}


def test_a_finished_run_resumes_to_its_end_without_a_step(run_stage: Any) -> None:
    _, work = run_stage("twice", max_steps=4)
    first = (work.out / "adapter" / "adapter_model.safetensors").read_bytes()
    steps = (work.out / "steps.json").read_bytes()
    seconds = read_metrics(work.out / "metrics.jsonl")[-2]["seconds"]
    _, again = run_stage("twice", max_steps=4)
    assert (again.out / "adapter" / "adapter_model.safetensors").read_bytes() == first
    assert (again.out / "steps.json").read_bytes() == steps  # the last validation is in it once
    assert json.loads((again.out / "training.json").read_text())["seconds"] >= seconds - 1e-6
