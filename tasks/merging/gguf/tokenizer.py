"""A byte-level BPE tokenizer's files -> the vocabulary of a GGUF file.

llama.cpp identifies pre-tokenizers by name. A tokenizer whose pre-tokenizer has no known name is
rejected: a file that splits text differently than in training would be worse than none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer

from tasks.core.errors import PipelineError
from tasks.merging.gguf.architecture import LEAVE_OUT

SPECIAL = ("bos", "eos", "unk", "pad")
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
BYTES, BYTES_ALONE = ("ByteLevel", True), ("ByteLevel", False)
# steps of the pre-tokenizer -> its name in llama.cpp
PRE_TOKENIZERS: dict[tuple[tuple[str, Any], ...], str] = {
    (BYTES,): "gpt-2",
    (("Digits", True), BYTES): "smollm",
    (("Split", rf"{_CASELESS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"), BYTES_ALONE): "llama-bpe",
    (("Split", rf"{_CASELESS}|{_WORDS}|\p{{N}}|{_REST}"), BYTES_ALONE): "qwen2",
}


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as llama.cpp stores it.

    Attributes:
        tokens: One for each row of the embedding, with bytes as GPT-2's characters.
        types: `TokenType` of each.
        merges: "left right" each, highest priority first.
        pre_tokenizer: Its name in llama.cpp.
        special: Token ids of "bos", "eos", "unk" and "pad", as far as defined.
        add_bos: A text begins with BOS.
        add_eos: A text ends with EOS.
        chat_template: In Jinja; "" if there is none.
    """

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    pre_tokenizer: str
    special: Mapping[str, int]
    add_bos: bool
    add_eos: bool
    chat_template: str = ""


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Read a tokenizer's folder.

    Args:
        folder: With tokenizer.json and usually tokenizer_config.json.
        rows: Of the embedding; ids without a token get a placeholder.

    Raises:
        PipelineError: It is not byte-level BPE, or its pre-tokenizer has no name in llama.cpp.
    """
    path, settings = folder / "tokenizer.json", _json(folder / "tokenizer_config.json")
    raw = _json(path)
    model = raw.get("model", {})
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = "BPE with byte fallback" if model.get("byte_fallback") else model.get("type")
        raise PipelineError(
            f"the tokenizer is {kind}; only byte-level BPE can be exported as GGUF", LEAVE_OUT
        )
    tokens, types = _tokens(model["vocab"], raw.get("added_tokens") or [], rows)
    ids = {token: i for i, token in enumerate(tokens)}
    special = {}
    for name in SPECIAL:
        text = settings.get(f"{name}_token")
        text = text.get("content") if isinstance(text, dict) else text
        if text in ids:
            special[name] = ids[text]
    add_bos, add_eos = _ends(Tokenizer.from_file(str(path)), special)
    template = folder / "chat_template.jinja"
    return Vocabulary(
        tokens=tokens,
        types=types,
        merges=tuple(m if isinstance(m, str) else " ".join(m) for m in model["merges"]),
        pre_tokenizer=pre_tokenizer_name(raw.get("pre_tokenizer")),
        special=special,
        add_bos=add_bos,
        add_eos=add_eos,
        chat_template=template.read_text(encoding="utf-8")
        if template.is_file()
        else _text(settings.get("chat_template")),
    )


def pre_tokenizer_name(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """The name of a pre-tokenizer in llama.cpp.

    Raises:
        PipelineError: No name is known.
    """
    steps = tuple(_step(step) for step in _flat(pre_tokenizer))
    if steps not in PRE_TOKENIZERS:
        shown = " then ".join(f"{name} ({value})" for name, value in steps) or "nothing"
        raise PipelineError(
            f"the tokenizer splits text by {shown}, whose name in llama.cpp is unknown", LEAVE_OUT
        )
    return PRE_TOKENIZERS[steps]


def _flat(step: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [inner for part in step["pretokenizers"] for inner in _flat(part)]
    return [step]


def _step(step: Mapping[str, Any]) -> tuple[str, Any]:
    """A step and its decisive setting; any other setting gives a value that is in no rule."""
    kind = str(step["type"])
    if kind == "ByteLevel":
        return kind, "with a space before" if step["add_prefix_space"] else step["use_regex"]
    if kind == "Digits":
        return kind, step["individual_digits"]
    if kind == "Split" and (step["behavior"], step["invert"]) == ("Isolated", False):
        return kind, step["pattern"].get("Regex")
    return kind, json.dumps(step, sort_keys=True)


def _tokens(
    vocabulary: Mapping[str, int], added: Sequence[Mapping[str, Any]], rows: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
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


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
