"""Token accuracy: share of the content's labelled tokens that are the likeliest, teacher-forced."""

from tasks.evaluation.metrics.protocol import SHARE, RowMetric

TOKEN_ACCURACY = RowMetric(
    name="token accuracy",
    key="token_accuracy",
    scale=SHARE,
    value=lambda sums: sums.correct / sums.tokens,
    terms=lambda row: (row.base_correct, row.tuned_correct),
)
