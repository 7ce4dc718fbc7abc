"""The tokenizer's folder: files, checks and the model's limits.

The limits are copied from the weights' config.json, so that tokenization depends on three values
and not on every edit of a model's config.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tasks.base.model_folder import TOKENIZER_FILES
from tasks.core.errors import PipelineError
from tasks.core.models.pretrained import max_length, read_tokenizer

LIMITS_FILE = "model_limits.json"


def adopt_tokenizer(folder: Path, target: Path) -> None:
    """Copy a model folder's tokenizer; one without tokenizer.json is converted.

    Raises:
        PipelineError: transformers can't load it.
    """
    if (folder / "tokenizer.json").is_file():
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
    else:
        read_tokenizer(folder).save_pretrained(target)
    check_tokenizer(target)


def check_tokenizer(folder: Path) -> None:
    """Check that a tokenizer loads from its own folder, is fast and has an end-of-text token.

    Raises:
        PipelineError: It fails a check.
    """
    tokenizer = read_tokenizer(folder)
    if not tokenizer.is_fast:
        raise PipelineError(
            f"the tokenizer ({type(tokenizer).__name__}) has no fast version",
            "Use a model with a tokenizer.json.",
        )
    if tokenizer.eos_token_id is None:
        raise PipelineError(
            "the tokenizer has no end-of-text token, so the model could not learn to stop",
            "Add eos_token to tokenizer_config.json.",
        )


def write_limits(config: Mapping[str, Any], folder: Path) -> int:
    """Write the limits of token sequences; returns the length of the longest."""
    longest = max_length(SimpleNamespace(**config))
    limits = {
        "max_tokens": longest,
        "model_type": str(config.get("model_type", "")),
        "vocab_size": int(config.get("vocab_size", 0)),
    }
    (folder / LIMITS_FILE).write_text(json.dumps(limits, indent=2) + "\n", encoding="utf-8")
    return longest
