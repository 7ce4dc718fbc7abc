"""The shape of a metric: name, scale, direction, guard, and how its value is computed.

A metric of rows is computed from the sums over a row set, a metric of problems from the attempts at
them, a metric of completions from each span of code. Summary, gate and report know no metric by
name: they read these fields. A metric of rows with `terms`, one of problems with `share` and every
metric of completions is compared by the gate; any other is only reported.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import fsum

from tasks.evaluation.completion.span_results import CompletionResult, SpanCompletion
from tasks.evaluation.results import Attempts, RowResult


@dataclass(frozen=True)
class Scale:
    """How values and differences are shown, and what margins of the gate refer to.

    Attributes:
        unit: Of a difference.
        factor: From the stored value to the shown one.
        digits: Decimals.
        suffix: After a value.
        is_relative: Margins are a share of the base's value; else an absolute difference.
    """

    unit: str
    factor: float = 1
    digits: int = 3
    suffix: str = ""
    is_relative: bool = False

    def value(self, value: float) -> str:
        """A value as shown in tables, such as "1.432" or "65.2 %"."""
        return f"{self.factor * value:,.{self.digits}f}{self.suffix}"

    def margin(self, margin: float) -> str:
        """The size of a difference with its unit, such as "3.0 points"."""
        return f"{self.factor * margin:.{self.digits}f} {self.unit}"

    def difference(self, value: float) -> str:
        """A signed difference without unit; one that rounds to zero has a plus."""
        text = f"{self.factor * value:+.{self.digits}f}"
        return (text.replace("-", "+") if float(text) == 0 else text).replace("-", "−")


NATS = Scale("nats", is_relative=True)
SHARE = Scale("points", factor=100, digits=1, suffix=" %")


@dataclass(frozen=True)
class RowSums:
    """Sums over the rows of a row set, of one model: content, and endings separately."""

    tokens: int
    text_bytes: int
    loss: float
    correct: int
    ending_tokens: int = 0
    ending_loss: float = 0.0
    ending_correct: int = 0


def row_sums(rows: Sequence[RowResult]) -> tuple[RowSums, RowSums]:
    """Sums of base and tuned model; exact, so that the order of the rows does not matter."""
    tokens, text_bytes = sum(row.tokens for row in rows), sum(row.text_bytes for row in rows)
    endings = sum(row.ending_tokens for row in rows)
    return (
        RowSums(
            tokens,
            text_bytes,
            fsum(row.base_loss_sum for row in rows),
            sum(row.base_correct for row in rows),
            endings,
            fsum(row.base_ending_loss_sum for row in rows),
            sum(row.base_ending_correct for row in rows),
        ),
        RowSums(
            tokens,
            text_bytes,
            fsum(row.tuned_loss_sum for row in rows),
            sum(row.tuned_correct for row in rows),
            endings,
            fsum(row.tuned_ending_loss_sum for row in rows),
            sum(row.tuned_ending_correct for row in rows),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What all metrics have.

    Attributes:
        name: In tables and gate.json.
        key: In metrics.json and in the stage's summary.
        scale: How it is shown.
        lower_is_better: As for losses.
        is_guarded: The gate's verdict is "regressed" where it is worse by more than the margin.
    """

    name: str
    key: str
    scale: Scale
    lower_is_better: bool = False
    is_guarded: bool = False


@dataclass(frozen=True, kw_only=True)
class RowMetric(Metric):
    """A metric of a row set.

    Attributes:
        value: From one model's sums over at least one token; None where it can't be computed.
        terms: Numerators of base and tuned model of one row, whose sum over the tokens is the
            value; None: not compared.
    """

    value: Callable[[RowSums], float | None]
    terms: Callable[[RowResult], tuple[float, float]] | None = None


@dataclass(frozen=True, kw_only=True)
class ProblemMetric(Metric):
    """A metric of problems of one suite and style.

    Attributes:
        value: From one model's attempts at each problem; None where they are too few.
        measures: Whether problems of a style have this metric.
        is_shown: Whether the report shows it for a style, where it is not compared.
        share: The value of one problem, 0..1, whose mean is the metric's; None: not compared.
    """

    value: Callable[[Sequence[Attempts]], float | None]
    measures: Callable[[str], bool] = lambda style: True
    is_shown: Callable[[str], bool] = lambda style: True
    share: Callable[[Attempts], float] | None = None


@dataclass(frozen=True, kw_only=True)
class CompletionMetric(Metric):
    """A metric of completed spans, the sum of their terms over the sum of their weights.

    Attributes:
        term: Of one model's completion.
        weight: Of the span.
        is_flip: The term is 0 or 1.
    """

    term: Callable[[SpanCompletion], float]
    weight: Callable[[CompletionResult], float] = lambda result: 1.0
    is_flip: bool = False

    def values(self, results: Sequence[CompletionResult]) -> tuple[float, float] | None:
        """Of base and tuned model; None where the weights sum to zero."""
        total = fsum(map(self.weight, results))
        if not total:
            return None
        base, tuned = (
            fsum(map(self.term, who))
            for who in ([r.base for r in results], [r.tuned for r in results])
        )
        return base / total, tuned / total


def mean(values: Iterable[float]) -> float | None:
    """The mean; None of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else None
