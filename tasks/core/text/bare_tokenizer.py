"""A tokenizer of transformers reduced to what encoding needs, for processes without transformers.

transformers imports PyTorch with its Auto classes: about 200 MiB for each process that tokenizes,
and 500 MiB with a build for CUDA. Its classes also change what tokenizer.json says, so the
tokenizer is loaded by them once, and the result is stored. The ids are the same, because the
tokenizer of `tokenizers` that computes them is.
"""

import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer


@dataclass(frozen=True)
class BareTokenizer:
    """The attributes of a fast tokenizer that `RowEncoder` reads, under the same names.

    Attributes:
        backend_tokenizer: Encodes texts.
        eos_token_id: Id of the end-of-text token.
        added_tokens_decoder: Added tokens by id.
        special_tokens_map: Role ("eos_token") -> token, for chat templates.
        chat_template: Template of chats without tools; "" for none.
        tools_template: Template of chats with tools; "" for none.
    """

    backend_tokenizer: Tokenizer
    eos_token_id: int
    added_tokens_decoder: Mapping[int, AddedToken]
    special_tokens_map: Mapping[str, Any]
    chat_template: str
    tools_template: str

    @classmethod
    def of(cls, tokenizer: Any) -> "BareTokenizer":
        """A fast tokenizer of transformers, reduced."""
        return cls(
            tokenizer.backend_tokenizer,
            tokenizer.eos_token_id,
            dict(tokenizer.added_tokens_decoder),
            dict(tokenizer.special_tokens_map),
            _template(tokenizer, None),
            _template(tokenizer, []),
        )

    @classmethod
    def read(cls, path: Path) -> "BareTokenizer":
        """The tokenizer that `write` wrote, in a folder that only this program writes to."""
        found = pickle.loads(path.read_bytes())
        if not isinstance(found, cls):
            raise TypeError(f"{path} holds a {type(found).__name__}")
        return found

    def write(self, path: Path) -> None:
        """Write it for other processes on this machine."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(self))

    def get_vocab(self) -> dict[str, int]:
        """All tokens and their ids."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def get_chat_template(self, _: None, tools: Any) -> str:
        """The template for chats with or without tools."""
        return self.chat_template if tools is None else self.tools_template


def _template(tokenizer: Any, tools: list[Any] | None) -> str:
    with suppress(ValueError):  # no template, or several and none is the default
        return str(tokenizer.get_chat_template(None, tools))
    return ""
