"""Pre-tokenizers of byte-level BPE, which llama.cpp identifies by name."""

import json
from collections.abc import Mapping
from typing import Any

from tasks.core.errors import PipelineError
from tasks.merging.gguf.architecture import LEAVE_OUT

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST_WITH_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CAMEL = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*",
)
BYTES, BYTES_ALONE = ("ByteLevel", True), ("ByteLevel", False)
Steps = tuple[tuple[str, Any], ...]


def _split(*patterns: str) -> Steps:
    return (*(("Split", pattern) for pattern in patterns), BYTES_ALONE)


_LLAMA3 = _split(rf"{_CASELESS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}")
# steps of the pre-tokenizer -> its name in llama.cpp
PRE_TOKENIZERS: dict[Steps, str] = {
    (BYTES,): "gpt-2",
    (
        ("Digits", True),
        BYTES,
    ): "smollm",  # StarCoder, Granite, Command R: the same under other names
    _LLAMA3: "llama-bpe",
    _split(rf"{_CASELESS}|{_WORDS}|\p{{N}}|{_REST}"): "qwen2",
    _split(
        rf"{_CASELESS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}|"
        rf" ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ): "qwen35",
    _split(rf"{_CAMEL[0]}|{_CAMEL[1]}|\p{{N}}|{_REST_WITH_SLASHES}"): "tekken",
    _split(
        rf"{_CAMEL[0]}{_CASELESS}?|{_CAMEL[1]}{_CASELESS}?|\p{{N}}{{1,3}}|{_REST_WITH_SLASHES}"
    ): "gpt-4o",
    (
        *_split("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")[:-1],
        ("Digits", True),
        BYTES_ALONE,
    ): "deepseek-coder",
}
# names whose vocabulary contains every word as a whole, and the same steps for merges alone
WITHOUT_WHOLE_WORDS = {"llama-bpe": "smaug-bpe"}


def pre_tokenizer_name(raw: Mapping[str, Any]) -> str:
    """The name of a tokenizer's pre-tokenizer in llama.cpp.

    Args:
        raw: tokenizer.json.

    Raises:
        PipelineError: No name is known, or the tokenizer changes the text before.
    """
    steps = tuple(_step(step) for step in _flat(raw.get("pre_tokenizer"), "pretokenizers"))
    if steps not in PRE_TOKENIZERS:
        shown = " then ".join(f"{name} ({value})" for name, value in steps) or "nothing"
        raise PipelineError(
            f"the tokenizer splits text by {shown}, whose name in llama.cpp is unknown", LEAVE_OUT
        )
    others = {step["type"] for step in _normalizers(raw)} - {"NFC"}
    if others:
        raise PipelineError(
            f"the tokenizer changes text by {', '.join(sorted(others))}, which llama.cpp does not",
            LEAVE_OUT,
        )
    name = PRE_TOKENIZERS[steps]
    return name if raw["model"].get("ignore_merges") else WITHOUT_WHOLE_WORDS.get(name, name)


def composes(raw: Mapping[str, Any]) -> bool:
    """Whether a tokenizer composes characters (NFC)."""
    return bool(_normalizers(raw))


def _normalizers(raw: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _flat(raw.get("normalizer"), "normalizers")


def _flat(step: Mapping[str, Any] | None, parts: str) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [inner for part in step[parts] for inner in _flat(part, parts)]
    return [step]


def _step(step: Mapping[str, Any]) -> tuple[str, Any]:
    """A step and its decisive setting; any other setting gives a value that is in no rule."""
    kind = str(step["type"])
    if kind == "ByteLevel":
        return kind, "with a space before" if step["add_prefix_space"] else step["use_regex"]
    if kind == "Digits":
        return kind, step["individual_digits"]
    # two ways to keep what the pattern matches; all patterns above match all of a text
    if kind == "Split" and (step["behavior"], step["invert"]) in {
        ("Isolated", False),
        ("Removed", True),
    }:
        return kind, step["pattern"].get("Regex")
    return kind, json.dumps(step, sort_keys=True)
