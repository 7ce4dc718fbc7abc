"""Text -> token ids, label mask, packing plan, as Parquet that training reads window by window.

run.py       the stage
encode.py    a batch of prompts and completions -> token ids with an exact boundary
rows.py      which of them are trained on, and why the others are not
packing.py   rows -> windows
audit.py     the written windows, counted and checked as training will read them
preflight.py what an epoch will be
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="tokenize",
    run="tasks.tokenization.run:run",
    inputs=("prompt.train", "prompt.validation", "prompt.test", "base.tokenizer"),
    outputs=("train", "validation", "test"),
    reads=("tokenize",),
    env=("numpy", "pyarrow", "tokenizers", "transformers"),
)
