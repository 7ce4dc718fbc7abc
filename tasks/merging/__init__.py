"""Stage `merge`: adapter + 16-bit base -> one plain model, measured against base + adapter.

adapter.py  a LoRA adapter read from its folder; W -> W + delta, DoRA included
shards.py   safetensors copied tensor by tensor, changed on the way
space.py    disk and memory, asked before anything is written
check.py    loss and next tokens of a model on held-out samples
ways.py     both ways of merging, written and measured; resumed after a kill
card.py     the model card
run.py      the stage

llama_cpp.py   config and tensor names in llama.cpp's words
vocabulary.py  the tokenizer in llama.cpp's words
gguf_file.py   one GGUF file, read back and compared
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="merge",
    run="tasks.merging.run:run",
    outputs=("model",),
    inputs=(
        "train.adapter",
        "base.weights",
        "base.tokenizer",
        "base.licence",
        "evaluate.gate",
        "evaluate.metrics",
        "tokenize.test",
    ),
    # the card's data section
    shows=(
        "filter.kept",
        "prompt.test",
        "prompt.train",
        "prompt.validation",
        "tokenize.train",
        "tokenize.validation",
        "train.training",
    ),
    reads=("merge",),
    env=(
        "bitsandbytes",
        "gguf",
        "numpy",
        "peft",
        "pyyaml",
        "safetensors",
        "tokenizers",
        "torch",
        "transformers",
    ),
)
