"""Stage `train`: tokenized windows and a frozen base -> a LoRA adapter.

Rooms, in the order of a run: `run` (the stage), `lora` (the adapter), `flat` (its parameters as one
tensor), `batches` (which rows a step sees), `loop` (the steps), `plain` (one step by transformers
and peft), `optimizer` (AdamW and the schedule), `checkpoints` (resume), `validation`, `metrics` and
`picture`.
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="train",
    run="tasks.training.run:run",
    inputs=("tokenize.train", "tokenize.validation", "base.weights", "base.tokenizer"),
    outputs=("adapter",),
    reads=("train",),
    env=("torch", "transformers", "peft", "bitsandbytes"),
    gpu=True,
)
