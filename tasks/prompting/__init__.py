"""Kept rows -> prompt and completion, split by project.

    run.py       the stage
    split.py     project -> train, validation or test; which rows stay under a cap

The texts themselves are made by `tasks.core.templates`, which the evaluation shares.
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="prompt",
    run="tasks.prompting.run:run",
    inputs=("filter.kept",),
    outputs=("train", "validation", "test"),
    reads=("prompt",),
)
