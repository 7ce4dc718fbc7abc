"""Metrics of endings: loss and accuracy of end markers and EOS, and the loss with them.

Reported and not compared: a model that has only learned to end its answers is no better at them.
"""

from tasks.evaluation.metrics.protocol import NATS, SHARE, RowMetric

ENDING_LOSS = RowMetric(
    name="loss of endings",
    key="ending_loss",
    scale=NATS,
    lower_is_better=True,
    value=lambda sums: sums.ending_loss / sums.ending_tokens if sums.ending_tokens else None,
)
ENDING_ACCURACY = RowMetric(
    name="token accuracy of endings",
    key="ending_accuracy",
    scale=SHARE,
    value=lambda sums: sums.ending_correct / sums.ending_tokens if sums.ending_tokens else None,
)
LOSS_WITH_ENDINGS = RowMetric(
    name="loss with endings",  # what training minimizes, and its validation loss reports
    key="loss_with_endings",
    scale=NATS,
    lower_is_better=True,
    value=lambda sums: (
        (sums.loss + sums.ending_loss) / (sums.tokens + sums.ending_tokens)
        if sums.ending_tokens
        else None
    ),
)
