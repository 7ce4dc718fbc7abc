"""Exact match: share of the problems whose answer equals the reference."""

from functools import partial

from tasks.evaluation.metrics.pass_at_k import mean_estimate, pass_share
from tasks.evaluation.metrics.protocol import SHARE, ProblemMetric
from tasks.evaluation.results import MATCHED

EXACT_MATCH = ProblemMetric(
    name="exact match",
    key="exact_match",
    scale=SHARE,
    is_guarded=True,
    value=partial(mean_estimate, k=1),
    measures=lambda style: style in MATCHED,
    share=pass_share,
)
