"""Configs and tokenizers from a local folder, by transformers' Auto classes; without PyTorch.

Apart from `loading`, so that a stage that needs a tokenizer alone does not depend on the code that
loads models.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from tasks.core.errors import PipelineError
from tasks.core.system.escape_text import first_line

DEFAULT_MAX_LENGTH = 1024  # of a model whose config names no limit
_LENGTH_NAMES = ("n_positions", "max_position_embeddings", "seq_length")


@contextmanager
def quiet() -> Iterator[None]:
    """Turn off transformers' progress bars and warnings for a while: no user can act on them."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def read_config(folder: Path, trust_remote_code: bool = False) -> Any:
    """A model's config.

    Raises:
        PipelineError: The folder holds no config of a type that transformers supports.
    """
    remedy = (
        "Point base at a causal language model that transformers supports, saved as safetensors."
    )
    return _read(AutoConfig, folder, "model", remedy, trust_remote_code)


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, as it was saved.

    Raises:
        PipelineError: The folder holds no tokenizer, or a damaged one.
    """
    remedy = "Point base at a model with a valid tokenizer.json and tokenizer_config.json."
    return _read(AutoTokenizer, folder, "tokenizer", remedy, trust_remote_code=False)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, padding on the left for batched generation.

    Padding reuses EOS where the tokenizer has no padding token. Nothing identifies padding by its
    id: labels come from lengths and generation gets an attention mask, so a trained EOS is never
    masked.

    Raises:
        PipelineError: As by `read_tokenizer`.
    """
    tokenizer = read_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def max_length(config: Any) -> int:
    """Tokens of the longest text that a model takes, from its config's attributes."""
    values = (getattr(config, name, None) for name in _LENGTH_NAMES)
    known = (int(value) for value in values if isinstance(value, (int, float)) and value > 0)
    return next(known, DEFAULT_MAX_LENGTH)


def _read(auto: Any, folder: Path, kind: str, remedy: str, trust_remote_code: bool) -> Any:
    """`from_pretrained` of an Auto class, with its errors as the user's."""
    try:
        with quiet():
            return auto.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        problem = f"no {kind} can be loaded from {folder}: {first_line(error)}"
        raise PipelineError(problem, remedy) from error
