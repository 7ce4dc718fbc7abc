"""Continuation of many prompts by one model.

In: prompts as token ids. Out: for each, the tokens written and whether it ended by itself. As many
prompts run together as memory holds, the longest first; the place of one that has ended goes to
the next. Only the last position's logits are computed. The loop is our own: it stops on whole
sequences of tokens and on a caller's word, and depends on no generation settings that come with a
model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tasks.core.errors import PipelineError
from tasks.core.models.device import free_gpu
from tasks.core.text.special_tokens import Marks
from tasks.evaluation.generation.continuous_batching import Answers, Generated, Run
from tasks.evaluation.generation.kv_cache import room_tokens
from tasks.evaluation.generation.sampling import GREEDY, Picker, Sampling


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts, as the training data has them.

    What the tokenizer puts before a text (BOS) is kept, what it puts behind is not, and a control
    token's name in a text stays the letters that it is; marks become the tokenizer's words.

    Raises:
        PipelineError: The tokenizer has no words for a mark in a text.
    """
    marks = Marks(tokenizer)
    starts = ([] if marks.starts_itself(text) else marks.prefix for text in texts)
    return [[*start, *ids] for start, ids in zip(starts, marks.encode(texts), strict=True)]


def stop_sequences(tokenizer: Any, marker: str) -> tuple[tuple[int, ...], ...]:
    """Token ids that end an answer: EOS, and the marker as it is written alone or in a text.

    Args:
        tokenizer: Of the model.
        marker: Such as "### End", or a mark; "" for none.
    """
    found: list[tuple[int, ...]] = []
    if tokenizer.eos_token_id is not None:
        found.append((tokenizer.eos_token_id,))
    if "\0" in marker:
        found.append(tuple(Marks(tokenizer).encode([marker])[0]))
    elif marker:
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
    batch: int | None,
    pad_id: int,
    stops: Sequence[tuple[int, ...]],
    sampling: Sampling = GREEDY,
    names: Sequence[str] | None = None,
    vram_gib: float | None = None,
    complete: Callable[[int, list[int]], bool] | None = None,
    done: Callable[[int, Generated], None] = lambda index, generated: None,
    record: bool = True,
) -> list[Generated]:
    """Continue every prompt.

    Args:
        model: A causal language model in eval mode.
        prompts: Token ids of each prompt, at least one.
        max_new_tokens: Tokens to write at most.
        batch: Prompts continued together; None: as many as free memory holds.
        pad_id: Fills up on the left; is masked.
        stops: Sequences that end an answer.
        sampling: How tokens are picked.
        names: Of the prompts, for their draws; None: their numbers.
        vram_gib: Cap on the GPU's memory that `batch` None stays under.
        complete: Asked now and then with (index of the prompt, tokens so far): enough? Such an
            answer has not stopped by itself.
        done: Called with each answer as soon as it is finished.
        record: Record steps on a GPU, see `stepping`.

    Returns:
        One value a prompt, in their order.

    Raises:
        PipelineError: A single prompt does not fit the GPU's memory.
    """
    results: dict[int, Generated] = {}

    def finish(index: int, generated: Generated) -> None:
        results[index] = generated
        done(index, generated)

    free_gpu()  # what an earlier call left to be collected is room too
    room, most = (0, batch) if batch else room_tokens(model, vram_gib)
    by_length = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    while waiting := [i for i in by_length if i not in results]:
        answers = Answers(tuple(stops), complete, Picker(sampling, names))
        run = Run(model, prompts, answers, max_new_tokens, pad_id, finish, record)
        try:
            run.all(waiting, batch or 0, room, most)
        except torch.OutOfMemoryError as error:
            # what free memory promised was not to be had: half of it is tried
            if run.rows_at_once == 1:
                longest = max(len(prompts[i]) for i in waiting)
                raise PipelineError(
                    f"the GPU has no room for one text of {longest} tokens and {max_new_tokens} "
                    "new ones",
                    "Lower evaluate.max_new_tokens.",
                ) from error
            batch, room, most = (batch or 0) // 2, room // 2, max(1, run.rows_at_once // 2)
            del run, answers
            free_gpu()
    return [results[i] for i in range(len(prompts))]
