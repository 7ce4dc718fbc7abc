"""GGUF -> safetensors and tokenizer, unpacked by transformers' own reader."""

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tasks.core.errors import PipelineError
from tasks.core.progress import say


def convert(gguf: Path, weights: Path, tokenizer: Path, dtype: str) -> None:
    """Write a GGUF file's weights and tokenizer as transformers saves them.

    Args:
        gguf: The file.
        weights: Folder for config.json, generation_config.json and the safetensors.
        tokenizer: Folder for the tokenizer's files.
        dtype: "bfloat16" or "float32".

    Raises:
        PipelineError: transformers can't read this kind of model.
    """
    say(f"unpacking {gguf.name} to {dtype}")
    try:
        with redirect_stderr(StringIO()):  # its progress bar has no switch
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=getattr(torch, dtype),
                quantization_config=GgufConfig(dequantize=True),
                trust_remote_code=False,
            )
            words = AutoTokenizer.from_pretrained(
                gguf.parent, gguf_file=gguf.name, trust_remote_code=False
            )
    except (ValueError, NotImplementedError) as error:
        raise PipelineError(
            f"{gguf.name} can't be unpacked: {error}",
            "Use the model's safetensors with base.path or base.hub_id.",
        ) from error
    model.save_pretrained(weights)
    words.save_pretrained(tokenizer)


def licence_in(gguf: Path) -> str:
    """The licence that a GGUF file's header names; "" if it names none."""
    fields = GGUFReader(gguf).fields
    for key in ("general.license", "general.license.name"):
        if key in fields and (value := str(fields[key].contents()).strip()):
            return value
    return ""
