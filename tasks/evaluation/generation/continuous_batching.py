"""Continuous batching: rows decode together, and a finished row is refilled at once."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.evaluation.generation.cuda_graph import DecodingStep
from tasks.evaluation.generation.kv_cache import KVCache, device_of, width_of
from tasks.evaluation.generation.sampling import Sampler

_CHECK_EVERY = 8  # steps between calls of a stop rule, which has to decode the text
_PREFILL_TOKENS = 2048  # padded tokens of prompts in one prefill pass
_GROWTH = 1.2  # the batch grows where at least a fifth more rows fit


@dataclass(frozen=True)
class Generated:
    """The answer to one prompt.

    Attributes:
        ids: Tokens, without the sequence that ended it.
        tokens: Tokens generated, including the ending sequence.
        stopped: Ended with one of the stop sequences.
    """

    ids: tuple[int, ...]
    tokens: int
    stopped: bool


@dataclass(frozen=True)
class Capacity:
    """How many rows fit.

    Attributes:
        batch: A fixed number of rows; 0: as many as `tokens` allow.
        tokens: Tokens of all rows together, where `batch` is 0.
        rows: Rows at most, where `batch` is 0.
    """

    batch: int
    tokens: int
    rows: int


class Answers:
    """Tokens of the running prompts, and when each is finished."""

    def __init__(
        self,
        stops: tuple[tuple[int, ...], ...],
        complete: Callable[[int, list[int]], bool] | None,
        pick: Sampler,
    ) -> None:
        self._stops, self._complete, self.pick = stops, complete, pick
        self.ids: dict[int, list[int]] = {}

    def add(self, index: int, token: int, most: int) -> Generated | None:
        """Add one token to a prompt's answer; returns the whole answer once it is finished."""
        ids = self.ids.setdefault(index, [])
        ids.append(token)
        endings = (s for s in self._stops if s[-1] == token and tuple(ids[-len(s) :]) == s)
        ending = max(endings, key=len, default=None)
        enough = len(ids) >= most or (
            self._complete is not None
            and len(ids) % _CHECK_EVERY == 0
            and self._complete(index, ids)
        )
        if ending is None and not enough:
            return None
        cut = len(ending) if ending else 0
        return Generated(tuple(ids[: len(ids) - cut]), len(ids), ending is not None)


class ContinuousBatch:
    """Answers a list of prompts on one KV cache.

    Args:
        model: In eval mode.
        prompts: Token ids of all prompts.
        waiting: Indexes of the prompts to answer, the longest first.
        answers: Decides when an answer is finished.
        max_new_tokens: Limit of one answer.
        pad_id: Pads prompts on the left; is masked.
        capacity: How many rows fit.
        finish: Called with (index, answer) as soon as an answer is finished.
        record: Capture steps on a GPU.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        waiting: Sequence[int],
        answers: Answers,
        max_new_tokens: int,
        pad_id: int,
        capacity: Capacity,
        finish: Callable[[int, Generated], None],
        record: bool,
    ) -> None:
        self.model, self.prompts, self.answers = model, prompts, answers
        self.most, self.pad_id, self.capacity = max_new_tokens, pad_id, capacity
        self.finish, self.record = finish, record
        self.queue = deque(waiting)
        self.rows: list[int | None] = []  # index of the prompt in each row; None: free
        self.last: list[int] = []  # token that each row generated last
        self.max_rows = 1  # most rows so far, also if memory ran out
        self.device = device_of(model)

    @torch.inference_mode()
    def run(self) -> None:
        """Answer all prompts."""
        count = self._wanted()
        self.rows, self.last, self.max_rows = [None] * count, [0] * count, count
        cache = KVCache(self.model, count, self._longest_row())
        step = DecodingStep(self.model, cache, self.record)
        try:
            while self.queue or self._running():
                step = self._advance(cache, step)
        finally:
            cache.free()

    def _advance(self, cache: KVCache, step: DecodingStep) -> DecodingStep:
        """Refill free rows or decode one token of every row; a reshaped cache needs a new step."""
        running = self._running()
        # a prefill interrupts decoding, so it waits until a quarter of the rows is free
        if self.queue and len(self.rows) - len(running) >= max(1, len(self.rows) // 4):
            wanted = self._wanted()
            cache.end_at(self._columns())
            if wanted >= _GROWTH * cache.rows:
                step = self._reshape(cache, running, wanted)
            free = [row for row, index in enumerate(self.rows) if index is None]
            self._admit(cache, [(row, self.queue.popleft()) for row in free if self.queue])
            return step
        # nothing waits and half of the rows are idle: they would cost as much as running ones
        if not self.queue and 2 * len(running) <= len(self.rows):
            cache.end_at(self._columns())
            step = self._reshape(cache, running, len(running))
        self._decode(cache, step)
        return step

    def _running(self) -> list[int]:
        """Rows with a prompt."""
        return [row for row, index in enumerate(self.rows) if index is not None]

    def _wanted(self) -> int:
        """Rows that fit and that there are prompts for."""
        running, fit = len(self._running()), self.capacity.batch
        if not fit:
            by_tokens = self.capacity.tokens // width_of(self._longest_row())
            fit = max(1, min(self.capacity.rows, by_tokens))
        return max(running, min(fit, running + len(self.queue)))

    def _longest_row(self) -> int:
        """Tokens that the longest row may reach: of the running prompts and the next one."""
        indexes = [index for index in self.rows if index is not None]
        return max(len(self.prompts[i]) for i in (*indexes, *list(self.queue)[:1])) + self.most

    def _reshape(self, cache: KVCache, keep: list[int], rows: int) -> DecodingStep:
        cache.reshape(keep, rows, self._longest_row())
        empty = rows - len(keep)
        self.rows = [*(self.rows[row] for row in keep), *[None] * empty]
        self.last = [*(self.last[row] for row in keep), *[0] * empty]
        self.max_rows = max(self.max_rows, rows)
        return DecodingStep(self.model, cache, self.record)

    def _admit(self, cache: KVCache, new: list[tuple[int, int]]) -> None:
        """Prefill prompts into free rows and pick their first tokens."""
        longest = max(len(self.prompts[index]) for _, index in new)
        cache.end_at(max(longest, self._columns()))
        for chunk in self._chunks(new):
            ids, mask = _padded([self.prompts[i] for _, i in chunk], self.pad_id, self.device)
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                past_key_values=cache.prefill([row for row, _ in chunk], mask),
                use_cache=True,
                logits_to_keep=1,
            )
            tokens = self.answers.pick(output.logits[:, -1], [index for _, index in chunk])
            for (row, index), token in zip(chunk, tokens, strict=True):
                self.rows[row] = index
                self._take(row, index, token)

    def _chunks(self, new: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        chunk: list[tuple[int, int]] = []
        for row, index in new:  # the longest comes first, so it sets the padded length
            length = len(self.prompts[chunk[0][1] if chunk else index])
            if chunk and (len(chunk) + 1) * length > _PREFILL_TOKENS:
                yield chunk
                chunk = []
            chunk.append((row, index))
        yield chunk

    def _decode(self, cache: KVCache, step: DecodingStep) -> None:
        """One more token of every row."""
        if cache.length == cache.width:
            cache.end_at(self._columns())
        positions = [0 if index is None else self._length(index) - 1 for index in self.rows]
        tokens = self.answers.pick(step(self.last, positions), self.rows)
        for row, token in enumerate(tokens):
            if (index := self.rows[row]) is not None:
                self._take(row, index, token)

    def _take(self, row: int, index: int, token: int) -> None:
        self.last[row] = token
        if (generated := self.answers.add(index, token, self.most)) is not None:
            self.rows[row] = None
            self.finish(index, generated)

    def _length(self, index: int) -> int:
        """Tokens of a prompt and its answer so far."""
        return len(self.prompts[index]) + len(self.answers.ids[index])

    def _columns(self) -> int:
        """Columns that the running rows need: their last token is not in the cache yet."""
        return max((self._length(i) - 1 for i in self.rows if i is not None), default=0)


def _padded(
    prompts: list[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Ids and mask, int64[rows, longest], padded on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
