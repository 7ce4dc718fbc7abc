"""Perplexity: e to the loss, reported only, as it orders models as the loss does."""

import math

from tasks.evaluation.metrics.protocol import RowMetric, Scale

PERPLEXITY = RowMetric(
    name="perplexity",
    key="perplexity",
    scale=Scale("", digits=2),
    lower_is_better=True,
    value=lambda sums: math.exp(min(sums.loss / sums.tokens, 700.0)),  # e^710 overflows
)
