"""Kept rows -> prompt and completion, split by project.

    run.py       the stage
    split.py     project -> train, validation or test; which rows stay under a cap
    problems.py  executable rows held out as an evaluation set in HumanEval's form
    contaminated.py  rows that hold one of these problems
    infill.py    which rows become infilling, and where their hole is

The texts themselves are made by `tasks.core.text.prompt_templates`, which the evaluation shares.
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="prompt",
    run="tasks.prompting.run:run",
    inputs=("filter.kept", "ingest.executable"),
    outputs=("train", "validation", "test", "problems"),
    reads=("prompt", "filter.decontamination"),
    env=("numpy", "pyarrow"),
    schema=2,
)
