"""Ends by itself: share of the answers that stop before the limit of tokens."""

from tasks.evaluation.metrics.protocol import SHARE, ProblemMetric, mean
from tasks.evaluation.results import CUT_BY_RULE

ENDS_BY_ITSELF = ProblemMetric(
    name="ends by itself",
    key="stops",
    scale=SHARE,
    value=lambda problems: mean(a.stopped for attempts in problems for a in attempts),
    is_shown=lambda style: style not in CUT_BY_RULE,  # what a rule cuts can't end by itself
)
