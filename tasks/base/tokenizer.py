"""The tokenizer's folder, and the model's limits beside it.

The limits stand here, and not only in the weights' config.json, so that tokenizing depends on
three values and not on every edit of a model's config.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from tasks.base.model_folder import TOKENIZER_FILES
from tasks.core.errors import PipelineError

LIMITS_FILE = "model_limits.json"
LENGTH_NAMES = ("n_positions", "max_position_embeddings", "seq_length")
DEFAULT_LENGTH = 1024


def adopt_tokenizer(folder: Path, target: Path) -> None:
    """Copy a model folder's tokenizer; one that comes only in the slow format is converted.

    Raises:
        PipelineError: transformers can't load it.
    """
    if (folder / "tokenizer.json").is_file():
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
    else:
        _load(folder).save_pretrained(target)
    check_tokenizer(target)


def check_tokenizer(folder: Path) -> None:
    """See that a tokenizer loads from its own folder, is a fast one and has an end-of-text token.

    Raises:
        PipelineError: One of the three is not so.
    """
    tokenizer = _load(folder)
    if not tokenizer.is_fast:
        raise PipelineError(
            f"the tokenizer ({type(tokenizer).__name__}) has no fast version",
            "Use a model that comes with a tokenizer.json.",
        )
    if tokenizer.eos_token_id is None:
        raise PipelineError(
            "the tokenizer names no end-of-text token, so a model could not learn to stop",
            "Add eos_token to tokenizer_config.json.",
        )


def _load(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, ImportError) as error:
        raise PipelineError(
            f"the tokenizer can't be loaded: {str(error).splitlines()[0]}",
            "Check tokenizer.json and tokenizer_config.json of the base model.",
        ) from error


def write_limits(config: Mapping[str, Any], folder: Path) -> int:
    """Write what tokens must fit: longest text, model type, vocabulary; returns the first."""
    longest = max_tokens(config)
    limits = {
        "max_tokens": longest,
        "model_type": str(config.get("model_type", "")),
        "vocab_size": int(config.get("vocab_size", 0)),
    }
    (folder / LIMITS_FILE).write_text(json.dumps(limits, indent=2) + "\n", encoding="utf-8")
    return longest


def max_tokens(config: Mapping[str, Any]) -> int:
    """The longest text of a model: the first of `LENGTH_NAMES` in its config, else 1,024."""
    values = (config.get(name) for name in LENGTH_NAMES)
    return next((int(value) for value in values if value), DEFAULT_LENGTH)
