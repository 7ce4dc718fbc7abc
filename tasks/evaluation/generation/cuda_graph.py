"""One decoding step of a batch: the last token of every row -> logits of the next.

On a GPU a step is captured once as a CUDA graph and replayed: a step of a 3B model launches some
two thousand small kernels, and launching them one by one takes longer than running them. The same
step runs uncaptured on a CPU, and where capturing fails.
"""

from typing import Any

import torch
from torch import Tensor

from tasks.core.progress import say
from tasks.core.system.escape_text import first_line
from tasks.evaluation.generation.kv_cache import KVCache, device_of, has_windows

Captured = tuple["torch.cuda.CUDAGraph", Tensor]


class DecodingStep:
    """Runs steps of one model on a KV cache of fixed shape.

    Args:
        model: In eval mode, with the adapter on or off for all steps.
        cache: Its KV cache.
        record: Capture and replay on a GPU.
    """

    def __init__(self, model: Any, cache: KVCache, record: bool = True) -> None:
        self._model, self._cache = model, cache
        device = device_of(model)
        # inputs of a graph have fixed addresses: they are overwritten, never replaced
        self._ids = torch.zeros(cache.rows, 1, dtype=torch.int64, device=device)
        self._positions = torch.zeros_like(self._ids)
        # sliding-window layers need transformers' own mask, which is new for every step
        self._windowed = has_windows(model, cache.width)
        self.records = record and device.type == "cuda" and not self._windowed
        # the reference attention adds the mask to the scores instead of selecting by it
        self._adds_mask = model.config._attn_implementation == "eager" and not self._windowed
        self._captured: dict[int, Captured] = {}  # by columns seen
        self._pool: Any = None

    def __call__(self, tokens: list[int], positions: list[int]) -> Tensor:
        """Logits [rows, vocabulary], overwritten by the next step.

        Args:
            tokens: Last token of each row.
            positions: Its position in the row's text.
        """
        self._cache.step()
        self._ids.copy_(torch.tensor(tokens)[:, None])
        self._positions.copy_(torch.tensor(positions)[:, None])
        if self.records and self._cache.seen not in self._captured:
            self._capture()
        if not self.records:
            return self._forward()
        graph, logits = self._captured[self._cache.seen]
        graph.replay()
        return logits

    def _forward(self) -> Tensor:
        mask = self._cache.mask[:, : self._cache.seen]
        if self._adds_mask:
            lowest = torch.finfo(self._model.dtype).min
            mask = torch.zeros_like(mask, dtype=self._model.dtype).masked_fill(~mask, lowest)
        output = self._model(
            input_ids=self._ids,
            attention_mask=mask if self._windowed else mask[:, None, None],
            position_ids=self._positions,
            past_key_values=self._cache.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _capture(self) -> None:
        """Capture the current step, which writes the same values again to the same column."""
        present = torch.cuda.current_stream()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # no types
        aside.wait_stream(present)
        with torch.cuda.stream(aside):
            self._forward()  # a first call allocates workspaces, which a capture must not
        present.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                logits = self._forward()
        except torch.OutOfMemoryError:
            raise  # `generate` tries again with fewer rows
        except RuntimeError as error:
            say(f"steps are not recorded on this GPU: {first_line(error)}")
            self.records = False
            self._captured.clear()
            return
        self._pool = graph.pool()
        self._captured[self._cache.seen] = graph, logits
