"""All metrics, in the order of the report. To add one, add a file and a line here."""

from collections.abc import Iterable

from tasks.evaluation.completion.span_metrics import (
    COMPLETION_BITS,
    EDIT_SIMILARITY,
    EXACT_COMPLETION,
    FIRST_LINE_MATCH,
)
from tasks.evaluation.metrics.bits_per_byte import BITS_PER_BYTE
from tasks.evaluation.metrics.ending_metrics import (
    ENDING_ACCURACY,
    ENDING_LOSS,
    LOSS_WITH_ENDINGS,
)
from tasks.evaluation.metrics.ends_by_itself import ENDS_BY_ITSELF
from tasks.evaluation.metrics.exact_match import EXACT_MATCH
from tasks.evaluation.metrics.loss import LOSS
from tasks.evaluation.metrics.pass_at_k import PASS_AT_1, pass_at
from tasks.evaluation.metrics.perplexity import PERPLEXITY
from tasks.evaluation.metrics.protocol import Metric, ProblemMetric
from tasks.evaluation.metrics.token_accuracy import TOKEN_ACCURACY

ROW_METRICS = (
    LOSS,
    TOKEN_ACCURACY,
    PERPLEXITY,
    BITS_PER_BYTE,
    ENDING_LOSS,
    ENDING_ACCURACY,
    LOSS_WITH_ENDINGS,
)
PROBLEM_METRICS = (PASS_AT_1, EXACT_MATCH, ENDS_BY_ITSELF)
COMPLETION_METRICS = (EDIT_SIMILARITY, EXACT_COMPLETION, FIRST_LINE_MATCH, COMPLETION_BITS)


def problem_metrics(style: str, ks: Iterable[int]) -> list[ProblemMetric]:
    """The metrics of problems of a style, pass@k for each of `ks`."""
    others = (metric for metric in PROBLEM_METRICS if metric is not PASS_AT_1)
    return [m for m in (*map(pass_at, ks), *others) if m.measures(style)]


def named(name: str) -> Metric:
    """The compared metric of that name; one that rows and completions share has one scale."""
    known: tuple[Metric, ...] = (*ROW_METRICS, *PROBLEM_METRICS, *COMPLETION_METRICS)
    return next(m for m in known if m.name == name)
