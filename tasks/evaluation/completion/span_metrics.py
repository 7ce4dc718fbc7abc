"""Metrics of completed spans of code: edit similarity, exact match, first line, bits per byte."""

import math

from tasks.evaluation.metrics.bits_per_byte import BITS
from tasks.evaluation.metrics.protocol import SHARE, CompletionMetric

EDIT_SIMILARITY = CompletionMetric(
    name="edit similarity",
    key="edit_similarity",
    scale=SHARE,
    is_guarded=True,
    term=lambda completion: completion.similarity,
)
EXACT_COMPLETION = CompletionMetric(
    name="exact match",
    key="exact_match",
    scale=SHARE,
    term=lambda completion: float(completion.exact),
    is_flip=True,
)
FIRST_LINE_MATCH = CompletionMetric(
    name="first-line match",
    key="first_line_match",
    scale=SHARE,
    term=lambda completion: float(completion.first_line),
    is_flip=True,
)
COMPLETION_BITS = CompletionMetric(
    name="bits per byte",
    key="bits_per_byte",
    scale=BITS,
    lower_is_better=True,
    term=lambda completion: completion.loss_sum / math.log(2),
    weight=lambda result: float(result.text_bytes),
)
