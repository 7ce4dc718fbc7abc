"""The train stage: tokenized windows and a base model in, an adapter out.

Trains in one process, or in `hardware.gpus` processes. Writes metrics.jsonl, loss.png and
training.json beside the adapter.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.core.models.packed_dataset import Windows
from tasks.core.progress import say
from tasks.core.settings.config import View
from tasks.core.settings.train import TrainSettings
from tasks.core.stage import CHAMPION, Inputs, Summary, Work
from tasks.training.batches import no_training_rows
from tasks.training.distributed.launch import train_data_parallel
from tasks.training.process import TrainingJob, train
from tasks.training.replay import write_replay_mix
from tasks.training.report.trackers import check_installed
from tasks.training.step_budget import AUTO, StepBudget


def run(config: View, inputs: Inputs, work: Work) -> Summary:
    """Train an adapter; frees the GPU however it ends.

    Raises:
        PipelineError: No training data, all labels masked, divergence, or settings that do not fit
            the base model or the machine.
        StopError: A stop was requested; a checkpoint is written.
    """
    settings = config.train
    check_installed(settings.track_with)
    data, start = _start(inputs, settings.start.replay_share, settings.seed, work.scratch)
    if settings.max_steps == AUTO:
        budget = _budget(settings, data)
        settings = budget.resolved(settings)
        start |= {"auto": budget.to_json()}
        say(f"train: {budget}")
    job = TrainingJob(
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
    return train(job) if config.hardware.gpus == 1 else train_data_parallel(job)


def _budget(settings: TrainSettings, data: Path) -> StepBudget:
    windows = Windows.open(data)
    if not len(windows):
        raise no_training_rows()
    return StepBudget.of(settings, int(windows.tokens.sum()), len(windows))


def _start(
    inputs: Inputs, replay_share: float, seed: int, scratch: Path
) -> tuple[Path, dict[str, Any]]:
    """The rows to train on, and the facts about the start for training.json."""
    data, before = inputs["tokenize.train"], inputs.get(f"{CHAMPION}tokenize.train")
    if before is None:
        return data, {"start": "base"}
    replay = write_replay_mix(data, before, replay_share, seed, scratch / "chosen")
    say(
        f"train: starts from the champion: {replay.new:,} new rows, {replay.old:,} of "
        f"{replay.known:,} old rows"
    )
    return scratch / "chosen", {"start": "champion", "rows": asdict(replay)}
