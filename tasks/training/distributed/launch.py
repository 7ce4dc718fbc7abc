"""Starts the processes of a data-parallel training through Accelerate's launcher and waits.

In: a job. Out: the main process's summary. It prints its progress as JSON lines, which are reported
here; its user errors are raised here as if they were this process's own.
"""

import json
import os
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from tasks.core.errors import PipelineError, StopError
from tasks.core.models.device import pick_device
from tasks.core.progress import report, say
from tasks.core.stage import Summary
from tasks.core.system.home import REPOSITORY
from tasks.training.process import TrainingJob
from tasks.training.signals import stop_on_signals

JOB_FILE, RESULT_FILE, LOG_FILE = "job.json", "result.json", "parallel.log"
LOG_LINES = 12
# of the launcher's report on each process that failed
_ENDED = re.compile(r"time +: (\S+)\n.*\n *rank +: (\d+) .*\n *exitcode +: -?\d+ \(pid: \d+\)(.*)")
_SAME_CAUSE_S = 5  # 30 s after the first failure, the launcher kills what it could not end


def train_data_parallel(job: TrainingJob) -> Summary:
    """Train in `hardware.gpus` processes.

    Raises:
        PipelineError: Fewer GPUs than `hardware.gpus`, a process that died, or an error of `train`.
    """
    check_gpus(job.hardware.gpus, pick_device(job.hardware.device))
    folder = job.scratch / "team"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT_FILE).unlink(missing_ok=True)
    (folder / JOB_FILE).write_text(job.model_dump_json(), encoding="utf-8")
    say(f"train: {job.hardware.gpus} processes share every step")
    with (folder / LOG_FILE).open("w", encoding="utf-8") as log:
        code = _run(command(job.hardware.gpus, folder), log)
    return _result(folder, code)


def command(processes: int, folder: Path) -> list[str]:
    """Accelerate's launcher with explicit options; no configuration file changes the run."""
    options = {
        "num_processes": str(processes),
        "num_machines": "1",
        "mixed_precision": "no",
        "dynamo_backend": "no",
        "main_process_port": "0",
    }
    start = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [*start, *flags, "-m", "tasks.training.distributed.worker", str(folder)]


def check_gpus(wanted: int, device: torch.device) -> None:
    """Raise a `PipelineError` if there are fewer than `wanted` GPUs."""
    if device.type == "cuda" and torch.cuda.device_count() < wanted:
        raise PipelineError(
            f"hardware.gpus is {wanted} and PyTorch sees {torch.cuda.device_count()}",
            f"Set hardware.gpus to at most {torch.cuda.device_count()}.",
        )


def _run(line: list[str], log: Any) -> int:
    """Run the launcher, report its progress, forward a stop request; returns its exit code."""
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    forwarded = False
    with (
        stop_on_signals() as stop_requested,
        subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        ) as launcher,
    ):
        assert launcher.stdout is not None
        try:
            for text in launcher.stdout:
                _report(text, log)
                if stop_requested() and not forwarded:
                    forwarded = True
                    launcher.send_signal(signal.SIGTERM)
        except BaseException:  # a second Ctrl-C, too, must not leave processes on the GPUs
            launcher.terminate()
            raise
        return launcher.wait()


def _report(text: str, log: Any) -> None:
    """Report a progress line of `worker`; anything else that was printed goes to the log."""
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    if isinstance(line, dict) and "label" in line:
        report(line["label"], line["done"], line["total"], line["note"])
    elif isinstance(line, dict) and "say" in line:
        say(line["say"])
    else:
        log.write(text)


def _result(folder: Path, code: int) -> Summary:
    _raise_for_killed(folder / LOG_FILE)
    try:
        result = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except OSError:
        lines = (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()
        raise PipelineError(
            f"a training process ended with code {code} and no result\n"
            + "\n".join(lines[-LOG_LINES:]),
            f"Read {folder / LOG_FILE}; with hardware.gpus=1 the error is this process's own.",
        ) from None
    if "problem" in result:
        kind = StopError if result["stop"] else PipelineError
        raise kind(result["problem"], result["remedy"])
    return Summary(**result)


def _raise_for_killed(log: Path) -> None:
    """Raise an error that names the process which a signal ended: it could not record it, and what
    the others have recorded follows from it."""
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    ended = [
        (datetime.strptime(at, "%Y-%m-%d_%H:%M:%S"), int(rank), name.strip(" ()"))
        for at, rank, name in _ENDED.findall(text)
    ]
    for at, rank, name in ended:
        late_s = (at - min(ended)[0]).total_seconds()
        if name.startswith("SIG") and name != "SIGTERM" and late_s < _SAME_CAUSE_S:
            raise PipelineError(
                f"process {rank + 1} of the training was killed by {name}",
                "SIGKILL usually means that the machine ran out of memory (`dmesg`); free some, or "
                f"lower hardware.gpus. Run again: it resumes from the last checkpoint. Log: {log}",
            )
