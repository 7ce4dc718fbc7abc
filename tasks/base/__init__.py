"""Stage `base`: base model and tokenizer from the hub, a folder or a GGUF file.

run.py              the stage
model_source.py     settings -> source of the model, and its identity in the cache key
hub.py              pinned snapshot from the Hugging Face hub
model_folder.py     a model folder: which files are read, and whether they are complete
gguf_conversion.py  GGUF -> safetensors and tokenizer
tokenizer.py        tokenizer files, checked; the model's limits
model_report.py     what the model supports: traits for the later stages, and the report
model_check.py      measures the architecture on a reduced model
lora_reach.py       which linear layers and experts LoRA trains
reduced_model.py    few layers, random weights, small vocabulary
licence.py          the license's name and files
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="base",
    run="tasks.base.run:run",
    outputs=("tokenizer", "weights", "licence", "checks"),
    reads=("base",),
    sources="tasks.base.model_source:key_sources",
    env=("transformers", "tokenizers", "gguf", "peft", "bitsandbytes", "safetensors", "torch"),
)
