"""One process of a distributed training: `python -m tasks.training.distributed.worker FOLDER`.

In: the job in FOLDER. The process that leads prints its progress as lines of JSON and writes the
summary or the error there.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from tasks.core import progress
from tasks.core.errors import PipelineError, StopError
from tasks.core.models.device import pick_device
from tasks.training.distributed.data_parallel import Team
from tasks.training.distributed.launch import JOB_FILE, RESULT_FILE
from tasks.training.job import Job
from tasks.training.process import train

PATIENCE = timedelta(hours=2)  # for the others, while one of them writes or measures


class Lines:
    """Progress as lines on standard output."""

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """Print how far a piece of work is."""
        _print({"label": label, "done": done, "total": total, "note": note})

    def message(self, text: str) -> None:
        """Print a sentence."""
        _print({"say": text})


def main(folder: Path) -> int:
    """Train as one of the team; the exit code."""
    from accelerate import PartialState
    from accelerate.utils import InitProcessGroupKwargs

    job = Job.model_validate_json((folder / JOB_FILE).read_text(encoding="utf-8"))
    on_cpu = pick_device(job.hardware.device).type == "cpu"
    patience = InitProcessGroupKwargs(timeout=PATIENCE).to_kwargs()
    state = PartialState(cpu=on_cpu, **patience)
    if not on_cpu:
        torch.cuda.set_device(state.local_process_index)
    team = Team(state.process_index, state.num_processes, lockstep=job.hardware.shard_base)
    try:
        if team.leads:
            with progress.sink(Lines()):
                summary = train(job, team)
            result: Mapping[str, Any] = asdict(summary)
        else:
            train(job, team)
            return 0
    except PipelineError as error:
        stop = isinstance(error, StopError)
        result = {"problem": error.problem, "remedy": error.remedy, "stop": stop}
    if team.leads:
        (folder / RESULT_FILE).write_text(json.dumps(result), encoding="utf-8")
    state.destroy_process_group()
    return 0


def _print(told: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
