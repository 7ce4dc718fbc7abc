"""Bits per byte: the loss by bytes of text, comparable between models with other tokenizers."""

import math

from tasks.evaluation.metrics.protocol import RowMetric, Scale

BITS = Scale("bits", is_relative=True)
BITS_PER_BYTE = RowMetric(
    name="bits per byte",
    key="bits_per_byte",
    scale=BITS,
    lower_is_better=True,
    value=lambda sums: (
        sums.loss / math.log(2) / sums.text_bytes if sums.text_bytes else None  # 0: unknown
    ),
)
