"""The stage: windows and a base in, an adapter out.

One process trains, or as many as there are GPUs to use. Beside the adapter the stage leaves
metrics.jsonl, loss.png and training.json.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.core.progress import say
from tasks.core.settings.config import View
from tasks.core.stage import (
    CHAMPION,
    Inputs,
    Summary,
    Work,
)
from tasks.training.distributed.launch import train_in_team
from tasks.training.job import Job
from tasks.training.process import train
from tasks.training.replay import write_chosen


def run(config: View, inputs: Inputs, work: Work) -> Summary:
    """Train an adapter; frees the GPU on every way out.

    Raises:
        PipelineError: Nothing to train on, all labels masked, divergence, settings that do not fit
            the base model or the machine, or a stop that was asked for.
    """
    settings = config.train
    data, start = _start(inputs, settings.start.replay_share, settings.seed, work.scratch)
    job = Job(
        train=settings,
        hardware=config.hardware,
        data=data,
        validation=inputs["tokenize.validation"],
        weights=inputs["base.weights"],
        adapter=inputs.get(f"{CHAMPION}train.adapter"),
        start=start,
        out=work.out,
        scratch=work.scratch,
    )
    return train(job) if config.hardware.gpus == 1 else train_in_team(job)


def _start(
    inputs: Inputs, replay_share: float, seed: int, scratch: Path
) -> tuple[Path, dict[str, Any]]:
    """The rows to train on, and what is told about the start of the training."""
    data, before = inputs["tokenize.train"], inputs.get(f"{CHAMPION}tokenize.train")
    if before is None:
        return data, {"start": "base"}
    replay = write_chosen(data, before, replay_share, seed, scratch / "chosen")
    say(
        f"train: goes on from the champion: {replay.new:,} new rows, {replay.old:,} of "
        f"{replay.known:,} old ones"
    )
    return scratch / "chosen", {"start": "champion", "rows": asdict(replay)}
