"""Rule: the base model predicts the output well enough. Measured with `filter.base_loss` only."""

from tasks.filtering.rules.protocol import Rule

BASE_LOSS = Rule(
    name="base_loss",
    setting="max_base_loss",
    unit="nats per token",
    measure=lambda row: row.base_loss,
    threshold=lambda settings: settings.max_base_loss,
)
