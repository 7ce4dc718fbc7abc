"""The pipeline: its stages in the order in which they run, checked when this module is imported."""

from collections.abc import Sequence

from tasks import (
    base,
    evaluation,
    filtering,
    ingestion,
    merging,
    prompting,
    tokenization,
    training,
)
from tasks.core.stage import Stage


def checked(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages if every name is unique and every input is an output of an earlier stage.

    Raises:
        ValueError: A mistake in the declarations.
    """
    outputs: set[str] = set()
    names: set[str] = set()
    for stage in stages:
        if stage.name in names:
            raise ValueError(f"two stages are called {stage.name}")
        for name in (*stage.inputs, *(n for option in stage.options for n in option.inputs)):
            if name not in outputs:
                raise ValueError(f"stage {stage.name} reads {name}, which no earlier stage makes")
        for name in stage.shows:
            if name.partition(".")[0] not in names:
                raise ValueError(
                    f"stage {stage.name} shows {name}, but no earlier stage has that name"
                )
        names.add(stage.name)
        outputs.update(f"{stage.name}.{output}" for output in stage.outputs)
    return tuple(stages)


PIPELINE = checked(
    [
        base.STAGE,
        ingestion.STAGE,
        filtering.STAGE,
        prompting.STAGE,
        tokenization.STAGE,
        training.STAGE,
        evaluation.STAGE,
        merging.STAGE,
    ]
)
