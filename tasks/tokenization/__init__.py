"""Tokenization: prompts and completions -> token ids, label mask and packing plan, as Parquet.

run.py             the stage
encode.py          a batch of prompts and completions, or conversations -> token ids
row_checks.py      which rows are trained on, and the reasons against the others
samples.py         rows and parts of texts, and their trained spans
remedies.py        what to do about rows that are dropped, for each reason
audit.py           counts and checks of the written windows, read back as training reads them
epoch_estimate.py  rows, tokens and optimizer steps of an epoch

Packing is in `core/models/packing.py`, because training and evaluation pack rows, too.
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="tokenize",
    run="tasks.tokenization.run:run",
    inputs=(
        "prompt.train",
        "prompt.validation",
        "prompt.test",
        "base.tokenizer",
        # for the data card
        "prompt.split",
        "filter.kept",
    ),
    outputs=("train", "validation", "test", "data_card"),
    reads=("tokenize",),
    env=("jinja2", "numpy", "pyarrow", "tokenizers", "transformers"),
)
