"""Results of the completion benchmark: what both models wrote for each span, with its scores."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class SpanCompletion:
    """What one model wrote for a span of code, cut where the scope of the span ends.

    Attributes:
        text: Without white space around it.
        tokens: Generated tokens.
        stopped: Ended by itself, or finished the span's scope, and not at the limit.
        exact: Equal to the reference, up to white space at the ends of lines.
        similarity: Edit similarity to the reference, 0..1.
        first_line: Its first line is that of the reference.
        loss_sum: Negative log-likelihood of the reference, in nats.
    """

    text: str
    tokens: int
    stopped: bool
    exact: bool
    similarity: float
    first_line: bool
    loss_sum: float


@dataclass(frozen=True)
class CompletionResult:
    """One span of held-out code, completed by both models.

    Attributes:
        span_id: Unique within a style.
        cluster: What the split never divides: a project, or a file.
        language: Name of the language.
        size: Of the span, such as "statement".
        style: "left context" or "with suffix".
        prompt: Text that the model continued.
        reference: The original text of the span.
        text_bytes: UTF-8 bytes of the tokens that `loss_sum` sums over.
        base: Of the base.
        tuned: Of the tuned model.
    """

    span_id: str
    cluster: str
    language: str
    size: str
    style: str
    prompt: str
    reference: str
    text_bytes: int
    base: SpanCompletion
    tuned: SpanCompletion


def by_style(completions: Iterable[CompletionResult]) -> dict[str, list[CompletionResult]]:
    """Completions by style, in the order of their first appearance."""
    groups: dict[str, list[CompletionResult]] = {}
    for completion in completions:
        groups.setdefault(completion.style, []).append(completion)
    return groups
