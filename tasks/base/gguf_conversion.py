"""GGUF conversion: a GGUF file -> safetensors and tokenizer, by transformers' own reader."""

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tasks.core.errors import PipelineError
from tasks.core.progress import say


def convert(gguf: Path, weights: Path, tokenizer: Path, dtype: str) -> None:
    """Convert a GGUF file's weights and tokenizer to the files of transformers.

    Args:
        gguf: The file.
        weights: Output folder for config.json, generation_config.json and the safetensors.
        tokenizer: Output folder for the tokenizer's files.
        dtype: "bfloat16" or "float32".

    Raises:
        PipelineError: transformers can't read this type of model.
    """
    say(f"converting {gguf.name} to {dtype}")
    try:
        with redirect_stderr(StringIO()):  # its progress bar can't be turned off
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=getattr(torch, dtype),
                quantization_config=GgufConfig(dequantize=True),
                trust_remote_code=False,
            )
            loaded = AutoTokenizer.from_pretrained(
                gguf.parent, gguf_file=gguf.name, trust_remote_code=False
            )
    except (ValueError, NotImplementedError) as error:
        raise PipelineError(
            f"{gguf.name} can't be converted: {error}",
            "Use the model's safetensors with base.path or base.hub_id.",
        ) from error
    model.save_pretrained(weights)
    loaded.save_pretrained(tokenizer)


def licence_in(gguf: Path) -> str:
    """The license in a GGUF file's header; "" if there is none."""
    fields = GGUFReader(gguf).fields
    for key in ("general.license", "general.license.name"):
        if key in fields and (value := str(fields[key].contents()).strip()):
            return value
    return ""
