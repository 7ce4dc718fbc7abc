"""Stage `train`: tokenized windows and a frozen base -> a LoRA adapter.

Rooms, in the order of a run: `run` (the stage), `replay` (which rows a training that goes on
sees), `job` (all that a process is told), `launch` and `worker` (a process a GPU), `team` (what
they tell each other), `process` (what one does), `lora` (the adapter), `sharding` (a base split
over GPUs), `flat` (trained parameters as one tensor), `batches` (which rows a step sees),
`choice` (which of two ways a step goes), `probe` and `sizes` (how much of it is in memory),
`loop` (the steps), `stepper` (what it asks of a way), `counters` (what was done), `troubles`
(what ends it), `optimizer` (AdamW and the schedule), `checkpoints` (resume), `stopping`,
`validation`, `metrics`, `picture` and `results`. A step goes by `plain` (transformers, peft and
autograd: the reference) or by `fast` (the fused step) with `fast_model` (what it needs of a
model), `fast_layer` (one layer forward and back), `fast_ops` (its operations in PyTorch) and
`fast_triton`, `fast_kernels`, `fast_attention` (on a GPU).
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="train",
    run="tasks.training.run:run",
    inputs=("tokenize.train", "tokenize.validation", "base.weights", "base.tokenizer"),
    outputs=("adapter",),
    goes_on=("train.adapter", "tokenize.train"),
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
