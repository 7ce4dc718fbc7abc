"""Starts a team of training processes through Accelerate's launcher and waits for it.

In: a job. Out: the summary of the process that leads. It reports its progress as lines of JSON,
which are handed on here; its errors come back as they would from this process.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from tasks.core.errors import PipelineError, StopError
from tasks.core.models.device import pick_device
from tasks.core.progress import report, say
from tasks.core.stage import Summary
from tasks.core.system.home import REPOSITORY
from tasks.training.job import Job
from tasks.training.signals import stop_on_signals

JOB_FILE, RESULT_FILE, LOG_FILE = "job.json", "result.json", "team.log"
LOG_LINES = 12


def train_in_team(job: Job) -> Summary:
    """Train in `hardware.gpus` processes.

    Raises:
        PipelineError: Fewer GPUs than asked for, a process that died, or what `train` raises.
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
    """Accelerate's launcher, with every choice made here and none by its configuration file."""
    choices = {
        "num_processes": str(processes),
        "num_machines": "1",
        "mixed_precision": "no",
        "dynamo_backend": "no",
        "main_process_port": "0",
    }
    start = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    options = [part for name, value in choices.items() for part in (f"--{name}", value)]
    return [*start, *options, "-m", "tasks.training.distributed.worker", str(folder)]


def check_gpus(wanted: int, device: torch.device) -> None:
    """Raise where there are fewer GPUs than are asked for."""
    if device.type == "cuda" and torch.cuda.device_count() < wanted:
        raise PipelineError(
            f"hardware.gpus is {wanted} and PyTorch sees {torch.cuda.device_count()}",
            f"Set hardware.gpus to at most {torch.cuda.device_count()}.",
        )


def _run(line: list[str], log: Any) -> int:
    """Run the launcher to its end and hand its progress on; a stop that is asked for goes to it."""
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    asked = False
    with (
        stop_on_signals() as stopping,
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
                _hand_on(text, log)
                if stopping() and not asked:
                    asked = True
                    launcher.send_signal(signal.SIGTERM)
        except BaseException:
            launcher.terminate()
            raise
        return launcher.wait()


def _hand_on(text: str, log: Any) -> None:
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if isinstance(told, dict) and "label" in told:
        report(told["label"], told["done"], told["total"], told["note"])
    elif isinstance(told, dict) and "say" in told:
        say(told["say"])
    else:
        log.write(text)


def _result(folder: Path, code: int) -> Summary:
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
