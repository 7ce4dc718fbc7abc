"""Loss: mean negative log-likelihood of the labelled tokens of the content, in nats per token."""

from tasks.evaluation.metrics.protocol import NATS, RowMetric

LOSS = RowMetric(
    name="loss",
    key="loss",
    scale=NATS,
    lower_is_better=True,
    is_guarded=True,
    value=lambda sums: sums.loss / sums.tokens,
    terms=lambda row: (row.base_loss_sum, row.tuned_loss_sum),
)
