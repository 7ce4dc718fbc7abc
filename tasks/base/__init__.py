"""Base model and tokenizer, from the hub, a folder or a GGUF file, as digested folders.

sources.py     settings -> what identifies the model, for the key
run.py         the stage
origin.py      settings -> where the model lies
hub.py         pinned snapshot from the Hugging Face hub
folder.py      a model folder, checked, weights linked
conversion.py  GGUF -> safetensors and tokenizer
tokenizer.py   tokenizer files, checked; the model's limits
licence.py     the licence's name and files
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="base",
    run="tasks.base.run:run",
    outputs=("tokenizer", "weights", "licence"),
    reads=("base",),
    sources="tasks.base.sources:sources",
    env=("transformers", "tokenizers", "gguf"),
)
