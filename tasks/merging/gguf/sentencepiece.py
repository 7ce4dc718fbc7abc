"""SentencePiece's BPE (Llama 2, Mistral, Gemma, Phi-3): scores of tokens, space before a text.

llama.cpp merges the neighbors whose token has the highest score. tokenizer.json has a list of
merges instead, in the order of these scores; so a score is the negative place of a token's first
merge.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.core.errors import PipelineError
from tasks.merging.gguf.architecture import LEAVE_OUT

MAX_UNLISTED = 0.01  # of the pairs that make a token; a list that SentencePiece made has them all
UNMERGED = -1e9


def scores(
    tokens: Sequence[str],
    vocabulary: Mapping[str, int],
    merges: Iterable[Sequence[str]],
    added: Sequence[Mapping[str, Any]],
) -> tuple[float, ...]:
    """The score of each token.

    Raises:
        PipelineError: llama.cpp would make merges that the tokenizer does not make.
    """
    place: dict[str, int] = {}
    listed = set()
    for i, (left, right) in enumerate(merges):
        place.setdefault(left + right, i)
        listed.add((left, right))
    apart = {entry["content"] for entry in added}
    pairs = {
        (token[:i], token[i:])
        for token in vocabulary.keys() - apart
        for i in range(1, len(token))
        if token[:i] in vocabulary and token[i:] in vocabulary
        if not apart.intersection((token[:i], token[i:]))
    }
    if len(missing := pairs - listed) > MAX_UNLISTED * max(1, len(pairs)):
        raise PipelineError(
            f"the tokenizer does not merge {len(missing)} of {len(pairs)} pairs that make a token, "
            "and llama.cpp would",
            LEAVE_OUT,
        )
    return tuple(-float(place[token]) if token in place else UNMERGED for token in tokens)


def space_prefix(raw: Mapping[str, Any], *, chat: bool) -> bool:
    """Whether llama.cpp puts a space before a text, and before text after a control token.

    Args:
        raw: tokenizer.json.
        chat: The tokenizer has a chat template, so that texts begin with a control token.

    Raises:
        PipelineError: The tokenizer changes text in a way that llama.cpp does not.
    """
    steps = [
        step
        for name, parts in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"))
        if raw.get(name)
        for step in (raw[name].get(parts, [raw[name]]))
    ]
    prefix = False
    for step in steps:
        match step:
            case {"type": "Prepend", "prepend": "▁"}:
                prefix = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
                pass
            case {"type": "Split", "pattern": {"String": " "}}:
                pass  # no space is left to split at
            case {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme}:
                # "first" is before the text alone, which llama.cpp can't do: in chats, that is
                # nowhere
                prefix = scheme == "always" or (scheme == "first" and not chat)
            case _:
                raise PipelineError(
                    f"the tokenizer changes text by {step['type']}, which llama.cpp does not",
                    LEAVE_OUT,
                )
    return prefix
