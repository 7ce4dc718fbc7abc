"""The base model's own loss on each row, for the rule `base_loss`: the stage with
`filter.base_loss`.

In: the rows, the base. Out: nats per token of each output, given its instruction and input. Rows
that the base predicts poorly are often data, generated, or in a language it was not trained on, and
should be inspected before they are trained on. The text is that of the row, without a prompt
template, which a later stage writes. Each row is run alone and its loss rounded, so that it does
not depend on what else is measured; it is cached by the row's content and the base.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from tasks.core.cache.manifest import digest_of
from tasks.core.models.chunked_loss import token_losses
from tasks.core.models.device import (
    Quantization,
    beyond_float16,
    free_gpu,
    pick_device,
    pick_dtype,
)
from tasks.core.models.loading import load_model
from tasks.core.models.packed_dataset import IGNORED, Window
from tasks.core.models.packed_forward import forward_hidden, loss_head, window_tensors
from tasks.core.models.pretrained import read_tokenizer
from tasks.core.models.trusted_code import is_trusted
from tasks.core.rows.parquet import read_batches
from tasks.core.rows.row_cache import by_content, fill, opened
from tasks.core.rows.row_cache_file import Values
from tasks.core.settings.hardware import HardwareSettings
from tasks.core.stage import Inputs, Summary, Work
from tasks.core.text.row_encoder import RowEncoder
from tasks.filtering.run import filter_rows

if TYPE_CHECKING:
    from tasks.core.settings.config import View

COLUMNS = ["instruction", "input", "output", "kind", "conversation"]
LOSSES = pa.schema([("loss", pa.float64())])  # null: the row has no token to predict
MAX_TOKENS = 2048  # of a row; a longer one is measured in part
BATCH_ROWS = 64  # whose losses are computed, and then stored, together
DIGITS = 3
QUANTIZATION: Quantization = "nf4"


def run(config: "View", inputs: Inputs, work: Work) -> Summary:
    """Measure every row, then filter; frees the GPU in between.

    Raises:
        PipelineError: As `tasks.filtering.run.run`, or the base can't be loaded.
    """
    return filter_rows(config, inputs, work, measure(config.hardware, inputs, work))


def measure(hardware: HardwareSettings, inputs: Inputs, work: Work) -> NDArray[np.float64]:
    """The loss of each row, in order; NaN for a row without a token to predict."""
    rows = inputs["ingest.rows"]
    weights, tokenizer = inputs["base.weights"], inputs["base.tokenizer"]
    dtype = pick_dtype("auto", pick_device(hardware.device), QUANTIZATION)
    identity = (digest_of(weights), digest_of(tokenizer), MAX_TOKENS, dtype)
    base = _Base(weights, tokenizer, hardware)
    with opened(work, identity, LOSSES, np.uint8, part="base_loss") as shards:
        try:
            fill(
                shards,
                by_content(read_batches(rows, BATCH_ROWS, COLUMNS)),
                base.losses,
                lambda table: table,
                work,
                workers=1,  # one process has the model
                batch_rows=BATCH_ROWS,
                rows_for_processes=BATCH_ROWS,
                progress=("base loss", pq.read_metadata(rows).num_rows),
            )
        finally:
            base.__dict__.pop("_model", None)
            free_gpu()
        return np.array(shards.table(["loss"]).column("loss"), dtype=np.float64)


@dataclass
class _Base:
    """The base model and its tokenizer, loaded when the first row needs them."""

    weights: Path
    tokenizer: Path
    hardware: HardwareSettings
    _limit: int = field(init=False)

    def __post_init__(self) -> None:
        limits = json.loads((self.tokenizer / "model_limits.json").read_text(encoding="utf-8"))
        self._limit = min(MAX_TOKENS, int(limits["max_tokens"]))

    @cached_property
    def _model(self) -> Any:
        return load_model(
            self.weights,
            quantization=QUANTIZATION,
            device=self.hardware.device,
            vram_gib=self.hardware.vram_gib,
            expandable_segments=self.hardware.expandable_segments,
            trust_remote_code=is_trusted(self.weights),
        )

    @cached_property
    def _encoder(self) -> RowEncoder:
        return RowEncoder(read_tokenizer(self.tokenizer))

    def losses(self, table: pa.Table) -> Values:
        """`LOSSES` of rows (`COLUMNS`)."""
        rows = table.to_pylist()
        given = self._encoder.prompts([_given(row) for row in rows])
        outputs = self._encoder.encode([row["output"] for row in rows])
        found = [self._loss(*pair) for pair in zip(given, outputs, strict=True)]
        empty = np.zeros(0, np.uint8), np.zeros(len(rows), np.int64)
        return Values(pa.table([pa.array(found, pa.float64())], schema=LOSSES), *empty)

    def _loss(self, given: Sequence[int], output: Sequence[int]) -> float | None:
        """Mean loss of an output: of its first tokens, given the last before it, if it is long."""
        output = output[: max(self._limit // 2, self._limit - len(given))]
        given = given[len(given) - min(len(given), self._limit - len(output)) :]
        tokens = np.array([*given, *output], dtype=np.int64)
        labels = tokens.copy()
        labels[: max(1, len(given))] = IGNORED
        if (labels == IGNORED).all():
            return None
        bounds = np.array([0, len(tokens)], dtype=np.int32)
        window = Window(tokens, labels, np.arange(len(tokens)), bounds, ("",))
        head = loss_head(self._model)
        tensors = window_tensors(window, head.weight.device)
        with torch.inference_mode():
            hidden = forward_hidden(self._model, tensors)[tensors.predictors]
            losses, _ = token_losses(hidden, head, tensors.targets)
        mean = float(losses.double().mean())
        if hidden.dtype == torch.float16 and not math.isfinite(mean):
            raise beyond_float16("the loss of a row", "Set filter.base_loss to false.")
        return round(mean, DIGITS) if math.isfinite(mean) else None


def _given(row: dict[str, Any]) -> str:
    """The text before an output."""
    if row["kind"] == "fill":  # the text after the hole does not precede it
        return str(json.loads(row["conversation"])["fill"]["prefix"])
    texts = [text for text in (row["instruction"], row["input"]) if text]
    return "\n\n".join(texts) + ("\n" if texts and row["kind"] != "file" else "")
