"""Stage `train`: tokenized windows and a frozen 4-bit base model in, a LoRA adapter out.

Modules in the order of a run:

- `run`: the stage. `replay`: which old rows a warm start sees again.
- `distributed`: one process per GPU (`launch`, `worker`, `data_parallel`), base sharding (`fsdp`).
- `process`: what one process does. `lora`: the adapter. `batches`: the windows of each step.
- `steppers`: forward and backward of a step by autograd; picks and sizes a stepper; `loss_scale` of
  float16.
- `fast`: the fused stepper, without autograd.
- `loop`: the training loop, with `optimizer`, `checkpoints`, `signals` and `validation`.
- `report`: metrics.jsonl, loss.png, training.json, and steps.json, the part of it that the model
  card shows and that is the same for the same training; experiment trackers.
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="train",
    run="tasks.training.run:run",
    inputs=("tokenize.train", "tokenize.validation", "base.weights", "base.tokenizer"),
    outputs=("adapter", "steps"),
    warm_start=("train.adapter", "tokenize.train"),
    reads=("train",),
    env=(
        "accelerate",
        "bitsandbytes",
        "numpy",
        "peft",
        "safetensors",
        "torch",
        "transformers",
        "triton",
    ),
    gpu=True,
)
