"""One process of a data-parallel training: `python -m tasks.training.distributed.worker FOLDER`.

In: the job in FOLDER. The main process prints its progress as JSON lines on standard output and
writes the summary to FOLDER; the first process that fails writes its error there.
"""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from tasks.core import progress
from tasks.core.errors import PipelineError, StopError
from tasks.core.models.device import pick_device
from tasks.training.distributed.data_parallel import DataParallel
from tasks.training.distributed.launch import JOB_FILE, LOG_FILE, RESULT_FILE
from tasks.training.process import TrainingJob, train

TIMEOUT = timedelta(hours=2)  # of a collective call: the others wait while one writes or measures


class JsonLines:
    """Progress as JSON lines on standard output; `launch` reads them."""

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """Print the progress of a piece of work."""
        _print({"label": label, "done": done, "total": total, "note": note})

    def message(self, text: str) -> None:
        """Print a message."""
        _print({"say": text})


def main(folder: Path) -> int:
    """Train as one of the processes; returns the exit code."""
    from accelerate import PartialState
    from accelerate.utils import InitProcessGroupKwargs

    job = TrainingJob.model_validate_json((folder / JOB_FILE).read_text(encoding="utf-8"))
    on_cpu = pick_device(job.hardware.device).type == "cpu"
    state = PartialState(cpu=on_cpu, **InitProcessGroupKwargs(timeout=TIMEOUT).to_kwargs())
    if not on_cpu:
        torch.cuda.set_device(state.local_process_index)
    parallel = DataParallel(state.process_index, state.num_processes, job.hardware.shard_base)
    result: Mapping[str, Any]
    try:
        if not parallel.is_main:
            train(job, parallel)
            return 0
        with progress.sink(JsonLines()):
            result = asdict(train(job, parallel))
    except StopError as error:  # all processes stop after the same step
        result = {"problem": error.problem, "remedy": error.remedy, "stop": True}
    except Exception as error:  # recorded and raised again
        note_first(folder, error, parallel)
        raise  # the launcher ends the others, which may wait for this one
    if parallel.is_main:
        (folder / RESULT_FILE).write_text(json.dumps(result), encoding="utf-8")
    state.destroy_process_group()
    return 0


def note_first(folder: Path, error: Exception, parallel: DataParallel) -> None:
    """Write an error as the result, unless another process was first: the errors of the others
    follow from it, such as that of a collective call whose partner is gone."""
    problem = f"process {parallel.rank + 1} of {parallel.size}: {type(error).__name__}: {error}"
    remedy = f"Read {folder / LOG_FILE}; with hardware.gpus=1 the error is this process's own."
    if isinstance(error, PipelineError):
        problem, remedy = error.problem, error.remedy
    with suppress(FileExistsError), (folder / RESULT_FILE).open("x", encoding="utf-8") as file:
        json.dump({"problem": problem, "remedy": remedy, "stop": False}, file)


def _print(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
