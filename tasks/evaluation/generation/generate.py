"""Generation of answers to many prompts by one model.

In: prompts as token ids. Out: for each, the generated tokens and whether it ended by itself. As
many prompts decode together as memory holds, the longest first. Only the last position's logits are
computed. The loop is our own because it stops on whole token sequences and on a caller's rule, and
ignores the generation settings that come with a model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tasks.core.errors import PipelineError
from tasks.core.models.device import free_gpu
from tasks.core.text.row_encoder import RowEncoder
from tasks.evaluation.generation.continuous_batching import (
    Answers,
    Capacity,
    ContinuousBatch,
    Generated,
)
from tasks.evaluation.generation.kv_cache import room_tokens
from tasks.evaluation.generation.own_generation import answer_one_by_one, supports_batches
from tasks.evaluation.generation.sampling import GREEDY, Sampler, Sampling


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts, as the training data has them.

    What the tokenizer adds before a text (BOS) is kept, what it adds after a text is not. The name
    of a control token in a text stays literal text; placeholders become control tokens.

    Raises:
        MissingTokenError: The tokenizer has no token for a placeholder in a text.
    """
    return RowEncoder(tokenizer).prompts(texts)


def stop_sequences(tokenizer: Any, marker: str) -> tuple[tuple[int, ...], ...]:
    """Token sequences that end an answer: EOS, and the marker alone and after other text.

    Args:
        tokenizer: Of the model.
        marker: Such as "### End", or a placeholder; "" for none.
    """
    found: list[tuple[int, ...]] = []
    if tokenizer.eos_token_id is not None:
        found.append((tokenizer.eos_token_id,))
    if "\0" in marker:
        found.append(tuple(RowEncoder(tokenizer).encode([marker])[0]))
    elif marker:
        # the text before a marker can change how the marker is split into tokens
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
        max_new_tokens: Limit of one answer.
        batch: Prompts continued together; None: as many as free memory holds.
        pad_id: Pads on the left; is masked.
        stops: Sequences that end an answer.
        sampling: How tokens are picked.
        names: Of the prompts, which seed their draws; None: their numbers.
        vram_gib: Cap on the GPU's memory that `batch` None stays under.
        complete: Called every few tokens with (index of the prompt, tokens so far); True ends the
            answer, which has then not stopped by itself.
        done: Called with each answer as soon as it is finished.
        record: Capture steps on a GPU, see `cuda_graph`.

    Returns:
        One value for each prompt, in order.

    Raises:
        PipelineError: A single prompt does not fit the GPU's memory.
    """
    results: dict[int, Generated] = {}

    def finish(index: int, generated: Generated) -> None:
        results[index] = generated
        done(index, generated)

    if not prompts:
        return []
    free_gpu()  # memory of an earlier call that is garbage counts as free
    by_length = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    if not supports_batches(model):
        answers = Answers(tuple(stops), complete, Sampler(sampling, names))
        answer_one_by_one(model, prompts, by_length, answers, max_new_tokens, finish)
        return [results[i] for i in range(len(prompts))]
    tokens, rows = (0, batch) if batch else room_tokens(model, vram_gib)
    capacity = Capacity(batch or 0, tokens, rows)
    while waiting := [i for i in by_length if i not in results]:
        answers = Answers(tuple(stops), complete, Sampler(sampling, names))
        running = ContinuousBatch(
            model, prompts, waiting, answers, max_new_tokens, pad_id, capacity, finish, record
        )
        try:
            running.run()
        except torch.OutOfMemoryError as error:
            # less memory was usable than was free: continue with half of it
            if running.max_rows == 1:
                longest = max(len(prompts[i]) for i in waiting)
                raise PipelineError(
                    f"the GPU has no room for one text of {longest} tokens and {max_new_tokens} "
                    "new ones",
                    "Lower evaluate.max_new_tokens.",
                ) from error
            halves = capacity.batch // 2, capacity.tokens // 2, max(1, running.max_rows // 2)
            capacity = Capacity(*halves)
            del running, answers
            free_gpu()
    return [results[i] for i in range(len(prompts))]
