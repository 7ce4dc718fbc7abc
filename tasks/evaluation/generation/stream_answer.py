"""Text continued token by token, and shown as soon as it is certain: what `finetune try` streams.

A loop of our own: it depends on no generation settings that come with a model, and holds back what
may turn out to be the end marker.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.core.errors import PipelineError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Decoding:
    """How tokens are picked.

    Attributes:
        max_new_tokens: At most.
        temperature: 0 takes the likeliest token.
        top_p: Share of the probability that is drawn from.
        seed: Of the draws.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


def answer(
    model: Any, tokenizer: Any, prompt: str, marker: str, decoding: Decoding
) -> Iterator[tuple[int, str]]:
    """Continue a prompt; (tokens so far, next piece of text) as soon as it is certain.

    Args:
        model: In eval mode.
        tokenizer: Its own.
        prompt: Text.
        marker: Text that ends the answer and is not shown; "" none.
        decoding: How tokens are picked.

    Raises:
        PipelineError: The prompt is longer than the model allows.
    """
    from tasks.core.models.pretrained import max_length
    from tasks.evaluation.generation.generate import encode

    ids = encode(tokenizer, [prompt])[0]
    room = max_length(model.config) - len(ids)
    if not ids or room < 1:
        raise PipelineError(
            f"the prompt has {len(ids)} tokens; the model takes 1 to {len(ids) + room - 1} and "
            "needs room to answer",
            "Change the prompt.",
        )
    ends = model.generation_config.eos_token_id
    stops = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    tokens = generated(model, ids, min(decoding.max_new_tokens, room), stops, decoding)
    return until(marker, decoded(tokenizer, tokens))


def generated(
    model: Any, ids: list[int], max_new_tokens: int, stops: set[int], decoding: Decoding
) -> Iterator[int]:
    """Token after token, the ending one included."""
    import torch

    device = model.get_input_embeddings().weight.device
    pick = picker(decoding, str(device))
    step, cache = torch.tensor([ids], device=device), None
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            output = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            token = pick(output.logits[0, -1].float())
        yield token
        if token in stops:
            return
        step = torch.tensor([[token]], device=device)


def picker(decoding: Decoding, device: str) -> "Callable[[Tensor], int]":
    """Logits float32[vocabulary] -> a token: the likeliest, or drawn."""
    import torch

    if decoding.temperature == 0:
        return lambda logits: int(logits.argmax())
    draws = torch.Generator(device).manual_seed(decoding.seed)

    def draw(logits: "Tensor") -> int:
        shares, order = torch.softmax(logits / decoding.temperature, -1).sort(descending=True)
        shares[shares.cumsum(-1) - shares >= decoding.top_p] = 0  # the likeliest always stays
        return int(order[torch.multinomial(shares, 1, generator=draws)])

    return draw


def decoded(tokenizer: Any, tokens: Iterable[int]) -> Iterator[tuple[int, str]]:
    """(Tokens so far, text that became whole); a character can take several tokens."""
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(skip_special_tokens=True)
    for count, token in enumerate(tokens, 1):
        yield count, stream.step(tokenizer.backend_tokenizer, token) or ""


def until(marker: str, pieces: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Pass text on up to a marker; what may be its beginning waits until that is certain."""
    held, count = "", 0
    for count, piece in pieces:
        held += piece
        if marker and marker in held:
            yield count, held[: held.index(marker)].rstrip("\n")
            return
        keep = next(
            (n for n in range(min(len(marker), len(held)), 0, -1) if marker.startswith(held[-n:])),
            0,
        )
        ready = held[: len(held) - keep]
        if marker:  # so do empty lines, which are part of it
            ready = ready.rstrip("\n")
        held = held[len(ready) :]
        yield count, ready
    yield count, held
