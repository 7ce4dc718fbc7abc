"""Stage `prompt`: kept rows -> prompts and completions, split by project.

    run.py             the stage
    split.py           which split a row is in, and why a row is in none
    units.py           what the split never divides
    problems.py        executable rows held out as an evaluation set in HumanEval's form
    decontaminate.py   rows that hold one of these problems
    format_prompts.py  rows -> prompt and completion, conversations passed on
    fill_in_middle.py  which rows become infilling, and where their hole is

The templates are in `tasks.core.text.prompt_templates`, which the evaluation uses too.
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="prompt",
    run="tasks.prompting.run:run",
    inputs=("filter.kept", "ingest.executable"),
    outputs=("train", "validation", "test", "problems", "split"),
    reads=("prompt", "filter.decontamination"),
    env=("numpy", "pyarrow"),
    schema=3,
)
