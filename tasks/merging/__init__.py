"""Stage `merge`: adapter + 16-bit base -> one plain model, compared with base + adapter.

run.py             the stage
adapter.py         a LoRA adapter read from its folder; W -> W + delta, including DoRA
expert_tensors.py  the same for fused experts, of which a checkpoint stores one matrix per expert
strategies/        what the adapter is added to: one file per strategy, and the registry
candidates.py      the merged weights of each strategy, written and measured; resumes after a kill
safetensors_io.py  safetensors copied tensor by tensor, changed while copying
row_blocks.py      blocks of rows that fit into a cache; several tensors at a time
rounding.py        stochastic rounding to bfloat16
verify.py          loss and next tokens on held-out samples: does the model reproduce base + adapter
resources.py       disk and memory checks
model_card.py      the model card
prompt_format/     chat template, stop words and Modelfile, as the model was trained
gguf/              export for llama.cpp and Ollama: file, hyper-parameters, tokenizer, families
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="merge",
    run="tasks.merging.run:run",
    outputs=("model",),
    inputs=(
        "train.adapter",
        "train.steps",
        "base.weights",
        "base.tokenizer",
        "base.licence",
        "evaluate.gate",
        "evaluate.metrics",
        "tokenize.test",
        "tokenize.data_card",
    ),
    reads=("merge", "prompt.template", "prompt.system", "prompt.date"),
    env=(
        "bitsandbytes",
        "gguf",
        "jinja2",
        "numpy",
        "peft",
        "pyyaml",
        "safetensors",
        "tokenizers",
        "torch",
        "transformers",
        "xllamacpp",
    ),
)
