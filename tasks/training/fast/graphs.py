"""CUDA graphs of a window's passes: recorded once per length, replayed with one call.

A window of 4,096 tokens takes about 1,500 kernel launches, which take the host as long as the GPU
needs to run them; in a small step, several times as long. A replay takes almost no time on the
host.

A graph holds addresses and numbers as they were when it was recorded. So everything that changes
from window to window is read from buffers that stay in place (`inputs.Inputs`): positions, sample
bounds, dropout seeds. Lengths are rounded up (`bucket`), so that few graphs serve all windows; the
tokens added are a sample of their own, without a loss, and change no gradient.
"""

from collections.abc import Callable, Hashable

import torch
from torch.nn.functional import pad

from tasks.core.models.packed_forward import WindowTensors
from tasks.core.progress import say
from tasks.core.system.escape_text import first_line

SMALLEST = 64  # step between lengths of short windows, in tokens
STEPS_AN_OCTAVE = 8  # lengths between a power of two and the next; at most 12 % of tokens are added


class WindowGraphs:
    """Runs passes by key: eagerly the first time, which compiles kernels, then as a graph."""

    def __init__(self) -> None:
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._failed = False

    def run(self, key: Hashable, body: Callable[[], None]) -> None:
        """Run a pass that always does the same for the same key."""
        if key not in self._graphs:
            if self._failed or key not in self._seen:
                self._seen.add(key)
                body()
                return
            recorded = self._record(body)
            if recorded is None:
                body()
                return
            self._graphs[key] = recorded
        self._graphs[key].replay()

    def _record(self, body: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                body()
        except RuntimeError as error:  # includes torch.OutOfMemoryError
            self._failed = True
            say(f"train: steps run without CUDA graphs: {first_line(error)}")
            return None
        return graph


def bucket(tokens: int) -> int:
    """The length at which a window of `tokens` runs: the next of 8 steps per power of two."""
    step = max(SMALLEST, (1 << max(0, tokens - 1).bit_length()) // (2 * STEPS_AN_OCTAVE))
    return -(-tokens // step) * step


def padded(window: WindowTensors, tokens: int) -> WindowTensors:
    """A window with one more sample, without a loss, that fills it up to `tokens`."""
    missing = tokens - window.tokens
    if not missing:
        return window
    more = torch.arange(missing, device=window.position_ids.device)[None]
    return WindowTensors(
        input_ids=pad(window.input_ids, (0, missing)),
        position_ids=torch.cat([window.position_ids, more.to(window.position_ids.dtype)], 1),
        cu_seqlens=pad(window.cu_seqlens, (0, 1), value=tokens),
        max_tokens=max(window.max_tokens, missing),
        predictors=window.predictors,
        targets=window.targets,
        weights=window.weights,
    )
