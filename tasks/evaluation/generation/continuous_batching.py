"""Works prompts off, so many rows at a time: reads, steps, hands finished rows' places on."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.evaluation.generation.cuda_graph import Step
from tasks.evaluation.generation.kv_cache import Slots, device_of, width_of
from tasks.evaluation.generation.sampling import Picker

_CHECK_EVERY = 8  # steps between asking whether an answer is complete; asking decodes text
_PREFILL_TOKENS = 2048  # padded tokens of prompts read in one pass
_GROWTH = 1.2  # more rows are made room for where it is a fifth more of them


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


class Answers:
    """Tokens of the rows under way, and who is finished."""

    def __init__(
        self,
        stops: tuple[tuple[int, ...], ...],
        complete: Callable[[int, list[int]], bool] | None,
        pick: Picker,
    ) -> None:
        self._stops, self._complete, self.pick = stops, complete, pick
        self.ids: dict[int, list[int]] = {}

    def add(self, index: int, token: int, most: int) -> Generated | None:
        """Take one token of a prompt; the whole answer once it is finished."""
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


class Run:
    """Works a list of prompts off, so many rows at a time."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        answers: Answers,
        max_new_tokens: int,
        pad_id: int,
        finish: Callable[[int, Generated], None],
        record: bool,
    ) -> None:
        self.model, self.prompts, self.answers = model, prompts, answers
        self.most, self.pad_id, self.finish, self.record = max_new_tokens, pad_id, finish, record
        self.rows: list[int | None] = []  # which prompt stands in each row
        self.last: list[int] = []  # token that each row wrote last
        self.rows_at_once = 1
        self.device = device_of(model)

    @torch.inference_mode()
    def all(self, indexes: Sequence[int], batch: int, room: int, most: int) -> None:
        """Continue these prompts.

        Args:
            indexes: The longest first.
            batch: Rows; 0: as many as there is room for.
            room: Tokens of all rows together, where `batch` is 0.
            most: Rows at most.
        """
        waiting = deque(indexes)
        slots, step = self._made(waiting, batch, room, most)
        try:
            self._work_off(waiting, slots, step, batch, room, most)
        finally:
            slots.free()

    def _work_off(
        self, waiting: deque[int], slots: Slots, step: Step, batch: int, room: int, most: int
    ) -> None:
        while waiting or any(index is not None for index in self.rows):
            free = [row for row, index in enumerate(self.rows) if index is None]
            under_way = [row for row, index in enumerate(self.rows) if index is not None]
            # reading a prompt is a pass of its own, so several go in together
            if waiting and len(free) >= max(1, len(self.rows) // 4):
                wanted = self._wanted(waiting, batch, room, most)
                slots.end_at(self._longest())
                if wanted >= _GROWTH * slots.rows:
                    step = self._reshaped(slots, under_way, wanted, waiting)
                    free = [row for row, index in enumerate(self.rows) if index is None]
                self._admit(slots, [(row, waiting.popleft()) for row in free if waiting])
                continue
            if not waiting and 2 * len(under_way) <= len(self.rows):
                slots.end_at(self._longest())
                step = self._reshaped(slots, under_way, len(under_way), waiting)
            self._step(slots, step)

    def _made(self, waiting: deque[int], batch: int, room: int, most: int) -> tuple[Slots, Step]:
        count = self._wanted(waiting, batch, room, most)
        self.rows, self.last, self.rows_at_once = [None] * count, [0] * count, count
        slots = Slots(self.model, count, self._need(waiting))
        return slots, Step(self.model, slots, self.record)

    def _wanted(self, waiting: deque[int], batch: int, room: int, most: int) -> int:
        """Rows that there is room and work for."""
        under_way = sum(index is not None for index in self.rows)
        fit = batch or max(1, min(most, room // width_of(self._need(waiting))))
        return max(under_way, min(fit, under_way + len(waiting)))

    def _need(self, waiting: deque[int]) -> int:
        """Tokens of the longest row, under way or next."""
        indexes = [index for index in self.rows if index is not None]
        return max(len(self.prompts[i]) for i in (*indexes, *list(waiting)[:1])) + self.most

    def _reshaped(self, slots: Slots, under_way: list[int], rows: int, waiting: deque[int]) -> Step:
        slots.reshape(under_way, rows, self._need(waiting))
        empty = rows - len(under_way)
        self.rows = [*(self.rows[row] for row in under_way), *[None] * empty]
        self.last = [*(self.last[row] for row in under_way), *[0] * empty]
        self.rows_at_once = max(self.rows_at_once, rows)
        return Step(self.model, slots, self.record)

    def _admit(self, slots: Slots, new: list[tuple[int, int]]) -> None:
        """Read prompts into free rows and write their first tokens."""
        longest = max(len(self.prompts[index]) for _, index in new)
        slots.end_at(max(longest, self._longest()))
        for chunk in self._chunks(new):
            ids, mask = _padded([self.prompts[i] for _, i in chunk], self.pad_id, self.device)
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                past_key_values=slots.entry([row for row, _ in chunk], mask),
                use_cache=True,
                logits_to_keep=1,
            )
            tokens = self.answers.pick(output.logits[:, -1], [index for _, index in chunk])
            for (row, index), token in zip(chunk, tokens, strict=True):
                self.rows[row] = index
                self._take(row, index, token)

    def _chunks(self, new: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        chunk: list[tuple[int, int]] = []
        for row, index in new:  # the longest comes first
            length = len(self.prompts[chunk[0][1] if chunk else index])
            if chunk and (len(chunk) + 1) * length > _PREFILL_TOKENS:
                yield chunk
                chunk = []
            chunk.append((row, index))
        yield chunk

    def _step(self, slots: Slots, step: Step) -> None:
        """One more token of every row."""
        if slots.length == slots.width:
            slots.end_at(self._longest())
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

    def _longest(self) -> int:
        """Columns that the rows under way need: their last token is not in the cache yet."""
        return max((self._length(i) - 1 for i in self.rows if i is not None), default=0)


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
