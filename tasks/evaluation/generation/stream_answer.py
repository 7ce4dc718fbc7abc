"""Streamed generation of one answer: each piece of text as soon as it is final, for `finetune try`.

The loop ignores the generation settings that come with a model, and holds back text that may turn
out to be the beginning of the end marker.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from tasks.core.errors import PipelineError
from tasks.core.text.special_tokens import literal
from tasks.evaluation.generation.sampling import Sampler, Sampling


def answer(
    model: Any, tokenizer: Any, prompt: str, marker: str, max_new_tokens: int, sampling: Sampling
) -> Iterator[tuple[int, str]]:
    """Continue a prompt; yields (tokens so far, next piece of text).

    Args:
        model: In eval mode.
        tokenizer: Its own.
        prompt: Text.
        marker: Text that ends the answer and is not shown, or the placeholder of a control token;
            "" none.
        max_new_tokens: Limit of the answer.
        sampling: How tokens are picked.

    Raises:
        PipelineError: The prompt is longer than the model allows.
    """
    from tasks.core.models.pretrained import max_length
    from tasks.core.text.row_encoder import RowEncoder
    from tasks.evaluation.generation.generate import encode

    ids = encode(tokenizer, [prompt])[0]
    room = max_length(model.config) - len(ids)
    if not ids or room < 1:
        raise PipelineError(
            f"the prompt has {len(ids):,} tokens; the model takes 1 to {len(ids) + room - 1:,} and "
            "needs room to answer",
            "Shorten the text." if ids else "Give a text that is not empty.",
        )
    ends = model.generation_config.eos_token_id
    stops = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    if "\0" in marker:
        encoder = RowEncoder(tokenizer)
        stops |= {*encoder.encode([marker])[0][:1]} & encoder.ends
        marker = "" if marker.startswith("\0{") else literal(marker)
    tokens = generated(model, ids, min(max_new_tokens, room), stops, sampling)
    return before_marker(marker, decoded(tokenizer, tokens))


def generated(
    model: Any, ids: list[int], max_new_tokens: int, stops: set[int], sampling: Sampling
) -> Iterator[int]:
    """One token after another, including the one that stops."""
    import torch

    device = model.get_input_embeddings().weight.device
    pick = Sampler(sampling)
    step, cache = torch.tensor([ids], device=device), None
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            output = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            (token,) = pick(output.logits[:, -1], [0])
        yield token
        if token in stops:
            return
        step = torch.tensor([[token]], device=device)


def decoded(tokenizer: Any, tokens: Iterable[int]) -> Iterator[tuple[int, str]]:
    """(Tokens so far, text that is complete); a character can take several tokens."""
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(skip_special_tokens=True)
    for count, token in enumerate(tokens, 1):
        yield count, stream.step(tokenizer.backend_tokenizer, token) or ""


def before_marker(marker: str, pieces: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Pieces up to a marker; text that may begin one is held back until that is decided."""
    held, count = "", 0
    for count, piece in pieces:
        held += piece
        if marker and marker in held:
            yield count, held[: held.index(marker)].rstrip("\n")
            return
        # the longest end of the text that is a beginning of the marker
        lengths = range(min(len(marker), len(held)), 0, -1)
        keep = next((n for n in lengths if marker.startswith(held[-n:])), 0)
        ready = held[: len(held) - keep]
        if marker:  # empty lines before a marker belong to it, so they are held back, too
            ready = ready.rstrip("\n")
        held = held[len(ready) :]
        yield count, ready
    yield count, held
