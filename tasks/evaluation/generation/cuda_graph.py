"""One step of a batch: the last token of every row -> logits of the next.

On a GPU a step is recorded once as a CUDA graph and replayed: a 3B model's step is some two
thousand small kernels, which take longer to start one by one than to run. The very same step runs
unrecorded on a CPU, and where recording does not work.
"""

from typing import Any

import torch
from torch import Tensor

from tasks.core.progress import say
from tasks.evaluation.generation.kv_cache import Slots, device_of, has_windows

Recorded = tuple["torch.cuda.CUDAGraph", Tensor]


class Step:
    """Runs steps of one model on slots that keep their shape.

    Args:
        model: In eval mode, with the adapter on or off as it is to stay.
        slots: Its cache.
        record: Record and replay on a GPU.
    """

    def __init__(self, model: Any, slots: Slots, record: bool = True) -> None:
        self._model, self._slots = model, slots
        device = device_of(model)
        self._ids = torch.zeros(slots.rows, 1, dtype=torch.int64, device=device)
        self._positions = torch.zeros_like(self._ids)
        # a layer with a window needs transformers' own mask, which is made anew for every step
        self._windowed = has_windows(model, slots.width)
        self.records = record and device.type == "cuda" and not self._windowed
        self._recorded: dict[int, Recorded] = {}
        self._pool: Any = None

    def __call__(self, tokens: list[int], positions: list[int]) -> Tensor:
        """Logits [rows, vocabulary], overwritten by the next step.

        Args:
            tokens: Last token of each row.
            positions: Its position in the row's text.
        """
        self._slots.step()
        self._ids.copy_(torch.tensor(tokens)[:, None])
        self._positions.copy_(torch.tensor(positions)[:, None])
        if self.records and self._slots.seen not in self._recorded:
            self._record()
        if not self.records:
            return self._forward()
        graph, logits = self._recorded[self._slots.seen]
        graph.replay()
        return logits

    def _forward(self) -> Tensor:
        slots = self._slots
        mask = slots.mask[:, : slots.seen]
        output = self._model(
            input_ids=self._ids,
            attention_mask=mask if self._windowed else mask[:, None, None],
            position_ids=self._positions,
            past_key_values=slots.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _record(self) -> None:
        """Record the step as it is now; running it twice writes the same column twice."""
        present = torch.cuda.current_stream()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(present)
        with torch.cuda.stream(aside):
            self._forward()  # what is made at a first call must not be made while recording
        present.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                logits = self._forward()
        except torch.OutOfMemoryError:
            raise  # fewer rows will do
        except RuntimeError as error:
            say(f"steps are not recorded on this GPU: {str(error).splitlines()[0]}")
            self.records = False
            self._recorded.clear()
            return
        self._pool = graph.pool()
        self._recorded[self._slots.seen] = graph, logits
