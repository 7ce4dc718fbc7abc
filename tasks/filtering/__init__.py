"""Stage `filter`: rows -> kept and rejected, with every reason and its measured value, and a
funnel.

rules/          registry of the rules: a measure of a row, compared with a threshold
dedup/          exact and near duplicates
redaction/      text -> text with placeholders for secrets, e-mail and IP addresses
report/         counts, plot and what-if of the thresholds
benchmarks.py   problems that must not be trained on, and their files for the cache key
reasons.py      reasons against a row, and the setting of each
remedies.py     what to do if no row is kept
score_rows.py   first pass: reasons, measured values and deduplication keys, a batch at a time
scores.py       results of the first pass, for deduplication and the second pass
write_rows.py   second pass: kept, rejected and measurements
run.py          the stage
base_loss.py    the stage with the base model's own loss on each row (filter.base_loss)

`tasks.core.decontamination` decides which rows hold a problem; the stage prompt uses it too.
"""

from tasks.core.stage import Stage, StageOption

STAGE = Stage(
    name="filter",
    run="tasks.filtering.run:run",
    outputs=("kept", "rejected"),
    inputs=("ingest.rows", "ingest.executable"),
    reads=("filter", "evaluate.sets"),
    env=("numpy", "packaging", "pyarrow"),
    sources="tasks.filtering.benchmarks:sources",
    options=(
        StageOption(
            setting="filter.base_loss",
            run="tasks.filtering.base_loss:run",
            inputs=("base.weights", "base.tokenizer"),
            env=("bitsandbytes", "tokenizers", "torch", "transformers"),
            gpu=True,
        ),
    ),
)
