"""Data parallelism: several processes train what one process trains."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tasks.core import progress
from tasks.core.errors import PipelineError, StopError
from tasks.core.settings.config import check
from tasks.training.distributed import launch
from tasks.training.distributed.data_parallel import DataParallel, distribute
from tasks.training.distributed.worker import note_first
from tasks.training.report.metrics_log import read_metrics
from tests.unit.training.conftest import make_window

CHANGES: dict[str, Any] = {"lora_dropout": 0.0, "max_steps": 6, "log_every": 1, "eval_every": 3}


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 4))
def test_every_window_goes_to_one_process(lengths: list[int], processes: int) -> None:
    windows = [make_window(n, prompt=1, seed=i) for i, n in enumerate(lengths)]
    shares = distribute(windows, processes)
    assert sorted(id(w) for share in shares for w in share) == sorted(map(id, windows))
    sums = [sum(len(w.input_ids) for w in share) for share in shares]
    assert max(sums) - min(sums) <= max(lengths)


def test_a_single_packed_window_is_shared_between_its_samples() -> None:
    window = make_window(9, 8, 7, 6)
    shares = [DataParallel(rank, 2).share([window]) for rank in range(2)]
    tokens = [sum(len(w.input_ids) for w in share) for share in shares]
    assert sum(tokens) == 30
    assert min(tokens) >= 13
    ids = np.concatenate([w.input_ids for share in shares for w in share])
    assert sorted(ids.tolist()) == sorted(window.input_ids.tolist())


def curve(work: Any) -> list[tuple[float, float, float]]:
    return [
        (x.get("loss", 0.0), x.get("grad_norm", 0.0), x.get("validation_loss", 0.0))
        for x in read_metrics(work.out / "metrics.jsonl")
    ]


def test_two_processes_train_what_one_does(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _, one = run_stage("one", **CHANGES)
    told: list[Any] = []

    class Sink:
        def update(self, *what: Any) -> None:
            told.append(what[:3])

        def message(self, text: str) -> None:
            told.append(text)

    with progress.sink(Sink()):
        summary, two = run_stage("two", hardware={"gpus": 2}, **CHANGES)
    assert json.loads((two.out / "training.json").read_text())["processes"] == 2
    for a, b in zip(curve(one), curve(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    ours, theirs = (load_file(w.out / "adapter/adapter_model.safetensors") for w in (two, one))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=2e-5)
    assert ("train", 6, 6) in told and "train: 2 processes share every step" in told
    assert summary.metrics["validation_loss"] == curve(two)[-1][2]
    assert (two.scratch / "checkpoints" / "step-00000006" / "state.pt").is_file()


def test_a_4_bit_base_sharded_over_two_processes_trains_as_a_whole_one(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    changes = CHANGES | {"quantization": "nf4", "dtype": "float32", "batch_rows": 3}
    _, whole = run_stage("whole", fast_path="off", **changes)
    _, split = run_stage("split", hardware={"gpus": 2, "shard_base": True}, **changes)
    for a, b in zip(curve(whole), curve(split), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    ours, theirs = (load_file(w.out / "adapter/adapter_model.safetensors") for w in (split, whole))
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_processes_in_lockstep_run_equally_many_windows() -> None:
    windows = [make_window(30), make_window(9, seed=1), make_window(8, seed=2)]
    for count in (1, 2, 3):
        shares = [DataParallel(rank, 2, lockstep=True).share(windows[:count]) for rank in range(2)]
        assert len(shares[0]) == len(shares[1])
        trained = sum(w.trained_tokens for share in shares for w in share)
        assert trained == sum(w.trained_tokens for w in windows[:count])


def test_a_base_is_not_split_over_one_gpu() -> None:
    with pytest.raises(PipelineError, match="sharding needs several GPUs"):
        check({"hardware": {"shard_base": True}})


@pytest.mark.parametrize("stop", [False, True])
def test_an_error_of_the_processes_is_raised_as_their_own(tmp_path: Path, stop: bool) -> None:
    told = {"problem": "it diverged", "remedy": "Lower it.", "stop": stop}
    (tmp_path / launch.RESULT_FILE).write_text(json.dumps(told))
    with pytest.raises(StopError if stop else PipelineError, match="it diverged\nLower it"):
        launch._result(tmp_path, 1)


def test_first_error_of_any_process_is_the_one_that_is_shown(tmp_path: Path) -> None:
    note_first(tmp_path, PipelineError("no room", "Lower it."), DataParallel(1, 2))
    note_first(tmp_path, RuntimeError("connection closed by peer"), DataParallel(0, 2))
    with pytest.raises(PipelineError, match=r"no room\nLower it"):
        launch._result(tmp_path, 1)


def test_error_that_is_no_users_error_names_its_process_and_the_log(tmp_path: Path) -> None:
    note_first(tmp_path, RuntimeError("device-side assert"), DataParallel(1, 2))
    with pytest.raises(PipelineError, match="process 2 of 2: RuntimeError: device-side") as raised:
        launch._result(tmp_path, 1)
    assert launch.LOG_FILE in raised.value.remedy


def test_process_that_fails_alone_ends_the_training_at_once_with_its_error(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "sitecustomize.py").write_text(FAILS_ALONE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with pytest.raises(PipelineError, match="process 2 of 2: MemoryError: only here"):
        run_stage("two", hardware={"gpus": 2}, **CHANGES)


# the second process fails in its second step, where the first waits for it
FAILS_ALONE = """
import os
if os.environ.get("RANK") == "1":
    from tasks.training.loop import Loop
    update = Loop._update

    def fail(self, step):
        if step == 1:
            raise MemoryError("only here")
        update(self, step)

    Loop._update = fail
"""


def test_process_that_the_kernel_kills_is_named_and_not_the_broken_connection_to_it(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    killed = FAILS_ALONE.replace('raise MemoryError("only here")', "os.kill(os.getpid(), 9)")
    (tmp_path / "sitecustomize.py").write_text(killed)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with pytest.raises(PipelineError, match="process 2 of the training was killed by SIGKILL"):
        run_stage("two", hardware={"gpus": 2}, **CHANGES)


REPORT = """Failures:
[1]:
  time      : 2026-03-05_06:29:{late}
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 12)  (SIGKILL)
  error_file: <N/A>
Root Cause (first observed failure):
[0]:
  time      : 2026-03-05_06:29:20
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 11)
"""


@pytest.mark.parametrize(("late", "told"), [(21, "killed by SIGKILL"), (50, "it diverged")])
def test_process_killed_with_the_first_failure_explains_it_and_one_killed_later_does_not(
    tmp_path: Path, late: int, told: str
) -> None:
    (tmp_path / launch.LOG_FILE).write_text(REPORT.format(late=late))
    note_first(tmp_path, PipelineError("it diverged", "Lower it."), DataParallel(0, 2))
    with pytest.raises(PipelineError, match=told):
        launch._result(tmp_path, 1)


def test_processes_that_die_are_reported_with_the_end_of_their_log(tmp_path: Path) -> None:
    (tmp_path / launch.LOG_FILE).write_text("one\nCUDA error: unspecified\n")
    with pytest.raises(PipelineError, match=r"code -9 and no result\n(.|\n)*CUDA error"):
        launch._result(tmp_path, -9)


def test_more_gpus_than_there_are_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(PipelineError, match=r"hardware\.gpus is 4 and PyTorch sees 1"):
        launch.check_gpus(4, torch.device("cuda"))
