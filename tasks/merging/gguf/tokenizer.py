"""A tokenizer's files -> the vocabulary of a GGUF file: byte-level BPE and SentencePiece's BPE.

The tokenizer is read as transformers loads it, as that is what the model was trained with.
A tokenizer that llama.cpp would apply differently is rejected: a file that splits text differently
than in training would be worse than none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer

from tasks.core.errors import PipelineError
from tasks.core.models.pretrained import read_tokenizer
from tasks.merging.gguf import byte_level, sentencepiece
from tasks.merging.gguf.architecture import LEAVE_OUT

SPECIAL = ("bos", "eos", "unk", "pad")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as llama.cpp stores it.

    Attributes:
        model: "gpt2" (byte-level BPE) or "llama" (SentencePiece).
        tokens: One for each row of the embedding; with bytes as GPT-2's characters in byte-level.
        types: `TokenType` of each.
        merges: "left right" each, highest priority first; byte-level only.
        scores: Of each token, the highest is merged first; SentencePiece only.
        pre_tokenizer: Its name in llama.cpp.
        special: Token ids of "bos", "eos", "unk" and "pad", as far as defined.
        add_bos: A text begins with BOS.
        add_eos: A text ends with EOS.
        space_prefix: A text begins with a space; SentencePiece only.
        normalized: The tokenizer composes characters (NFC), which llama.cpp does not do.
        strips: Control tokens remove the spaces after them.
        chat_template: In Jinja; "" if there is none.
    """

    model: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    pre_tokenizer: str
    special: Mapping[str, int]
    add_bos: bool
    add_eos: bool
    space_prefix: bool = False
    normalized: bool = False
    strips: bool = False
    chat_template: str = ""


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Read a tokenizer's folder.

    Args:
        folder: With tokenizer.json and usually tokenizer_config.json.
        rows: Of the embedding; ids without a token get a placeholder.

    Raises:
        PipelineError: llama.cpp would split text differently.
    """
    loaded = read_tokenizer(folder)
    raw = json.loads(loaded.backend_tokenizer.to_str())
    model, added = raw.get("model", {}), raw.get("added_tokens") or []
    if model.get("type") != "BPE":
        raise PipelineError(
            f"the tokenizer is {model.get('type')}; only BPE can be exported as GGUF", LEAVE_OUT
        )
    tokens, types = _tokens(model, added, rows)
    template = loaded.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    pieces = bool(model.get("byte_fallback"))
    found = [(name, getattr(loaded, f"{name}_token_id")) for name in SPECIAL]
    special = {name: i for name, i in found if i is not None}
    add_bos, add_eos = _ends(loaded.backend_tokenizer, special)
    return Vocabulary(
        model="llama" if pieces else "gpt2",
        tokens=tokens,
        types=types,
        merges=() if pieces else tuple(" ".join(pair) for pair in merges),
        scores=sentencepiece.scores(tokens, model["vocab"], merges, added) if pieces else (),
        pre_tokenizer="default" if pieces else byte_level.pre_tokenizer_name(raw),
        special=special,
        add_bos=add_bos,
        add_eos=add_eos,
        space_prefix=pieces and sentencepiece.space_prefix(raw, chat=bool(template)),
        normalized=not pieces and byte_level.composes(raw),
        strips=any(token["rstrip"] for token in added if token["special"]),
        chat_template=template or "",
    )


def _tokens(
    model: Mapping[str, Any], added: Sequence[Mapping[str, Any]], rows: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    vocabulary = model["vocab"]
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [int(TokenType.UNUSED)] * rows
    beyond = max([*vocabulary.values(), *(token["id"] for token in added)], default=0)
    if beyond >= rows:
        raise PipelineError(
            f"the tokenizer has a token {beyond} and the embedding {rows} rows", LEAVE_OUT
        )
    for token, i in vocabulary.items():
        tokens[i], types[i] = token, int(TokenType.NORMAL)
    for entry in added:
        kind = TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED
        tokens[entry["id"]], types[entry["id"]] = entry["content"], int(kind)
    if model.get("byte_fallback"):
        for byte in range(256):
            if (i := vocabulary.get(f"<0x{byte:02X}>")) is not None:
                types[i] = int(TokenType.BYTE)
        if (unknown := vocabulary.get(model.get("unk_token"))) is not None:
            types[unknown] = int(TokenType.UNKNOWN)
    return tuple(tokens), tuple(types)


def _ends(tokenizer: Tokenizer, special: Mapping[str, int]) -> tuple[bool, bool]:
    """Whether the tokenizer adds BOS before a text, and EOS after it.

    Raises:
        PipelineError: It adds other tokens.
    """
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    complete = tokenizer.encode("a", add_special_tokens=True).ids
    before, after = [special.get("bos")], [special.get("eos")]
    for front in ([], before):
        for end in ([], after):
            if complete == [*front, *bare, *end]:
                return bool(front), bool(end)
    raise PipelineError(
        f"the tokenizer encodes {bare} as {complete}, which adds more than BOS and EOS",
        LEAVE_OUT,
    )
