"""Greedy continuation of many prompts by one model.

In: prompts as token ids. Out: for each, the tokens written and whether it ended by itself. Prompts
of like length run together, padded on the left, with a key-value cache; only the last position's
logits are computed. The loop is our own: it stops on whole sequences of tokens and on a caller's
word, and depends on no generation settings that come with a model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_CHECK_EVERY = 8  # steps between asking whether an answer is complete; asking decodes text


@dataclass(frozen=True)
class Generated:
    """What was written after one prompt.

    Attributes:
        ids: Tokens, without the sequence that ended it.
        tokens: Tokens generated, the ending sequence included.
        stopped: Ended with one of the stop sequences.
    """

    ids: tuple[int, ...]
    tokens: int
    stopped: bool


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts, as the training data has them.

    What the tokenizer puts before a text (BOS) is kept, what it puts behind is not, and a control
    token's name in a text stays the letters that it is.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    bare = backend.encode("a", add_special_tokens=False).ids
    dressed = backend.encode("a", add_special_tokens=True).ids
    starts = range(len(dressed) - len(bare) + 1)
    at = next((i for i in starts if dressed[i : i + len(bare)] == bare), 0)
    encodings = backend.encode_batch(list(texts), add_special_tokens=False)
    return [[*dressed[:at], *encoding.ids] for encoding in encodings]


def stop_sequences(tokenizer: Any, marker: str) -> tuple[tuple[int, ...], ...]:
    """Token ids that end an answer: EOS, and the marker as it is written alone or in a text.

    Args:
        tokenizer: Of the model.
        marker: Such as "### End"; "" for none.
    """
    found: list[tuple[int, ...]] = []
    if tokenizer.eos_token_id is not None:
        found.append((tokenizer.eos_token_id,))
    if marker:
        # what stands before a marker can change how it is cut into tokens
        for before in ("", "\n", "\n\n", "x\n\n"):
            head = tokenizer(before, add_special_tokens=False)["input_ids"] if before else []
            whole = tokenizer(before + marker, add_special_tokens=False)["input_ids"]
            if whole[: len(head)] == head:
                found.append(tuple(whole[len(head) :]))
    return tuple(dict.fromkeys(sequence for sequence in found if sequence))


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch: int,
    pad_id: int,
    stops: Sequence[tuple[int, ...]],
    complete: Callable[[int, list[int]], bool] | None = None,
    done: Callable[[int, int], None] = lambda prompts, tokens: None,
) -> list[Generated]:
    """Continue every prompt greedily.

    Args:
        model: A causal language model in eval mode.
        prompts: Token ids of each prompt, at least one.
        max_new_tokens: Tokens to write at most.
        batch: Prompts continued together.
        pad_id: Fills up on the left; is masked.
        stops: Sequences that end an answer.
        complete: Asked now and then with (index of the prompt, tokens so far): enough? Such an
            answer has not stopped by itself.
        done: Called after each batch with the prompts and tokens finished so far.

    Returns:
        One value a prompt, in their order.
    """
    results: dict[int, Generated] = {}
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    tokens = 0
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        answers = _Answers(chosen, tuple(stops), complete)
        _continue(model, [prompts[i] for i in chosen], answers, max_new_tokens, pad_id)
        results.update(zip(chosen, answers.results(), strict=True))
        tokens += sum(results[i].tokens for i in chosen)
        done(len(results), tokens)
    return [results[i] for i in range(len(prompts))]


class _Answers:
    """Tokens of one batch, and who is finished."""

    def __init__(
        self,
        indexes: list[int],
        stops: tuple[tuple[int, ...], ...],
        complete: Callable[[int, list[int]], bool] | None,
    ) -> None:
        self.indexes, self.stops, self.complete = indexes, stops, complete
        self.ids: list[list[int]] = [[] for _ in indexes]
        self.cut = [0] * len(indexes)  # length of the ending sequence
        self.open = [True] * len(indexes)

    def add(self, tokens: list[int]) -> bool:
        """Take one step's tokens; False once all are finished."""
        for row, token in enumerate(tokens):
            if not self.open[row]:
                continue
            ids = self.ids[row]
            ids.append(token)
            endings = (s for s in self.stops if s[-1] == token and tuple(ids[-len(s) :]) == s)
            if (ending := max(endings, key=len, default=None)) is not None:
                self.cut[row], self.open[row] = len(ending), False
            elif self.complete is not None and len(ids) % _CHECK_EVERY == 0:
                self.open[row] = not self.complete(self.indexes[row], ids)
        return any(self.open)

    def results(self) -> list[Generated]:
        """What each row came to."""
        return [
            Generated(tuple(ids[: len(ids) - cut]), len(ids), cut > 0)
            for ids, cut in zip(self.ids, self.cut, strict=True)
        ]


@torch.inference_mode()
def _continue(
    model: Any, prompts: list[Sequence[int]], answers: _Answers, max_new_tokens: int, pad_id: int
) -> None:
    device = model.get_input_embeddings().weight.device
    ids, mask = _padded(prompts, pad_id, device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache: Any = None
    for _ in range(max_new_tokens):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        ids = output.logits[:, -1].argmax(-1, keepdim=True)
        if not answers.add(ids[:, 0].tolist()):
            return
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
        positions = positions[:, -1:] + 1


def _padded(
    prompts: list[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Ids and mask, int64[rows, longest], filled up on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
