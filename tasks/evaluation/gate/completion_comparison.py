"""Paired comparisons of base and tuned model on completed spans of code, by unit of the split."""

from collections.abc import Sequence
from dataclasses import replace

from tasks.core.rows.split_unit import FEWEST_CLUSTERS, plural
from tasks.evaluation.completion.span_results import CompletionResult, by_style
from tasks.evaluation.gate import cluster_inference
from tasks.evaluation.gate.comparison import (
    Comparison,
    Margins,
    as_comparison,
    detectable_in_clusters,
)
from tasks.evaluation.metrics.protocol import CompletionMetric
from tasks.evaluation.metrics.registry import COMPLETION_METRICS
from tasks.evaluation.results import Evaluation

# one imaginary span of each kind of flip, as in `mcnemar`: where few spans moved, they alone would
# claim certainty
_FLIPS = (("\0won", 0.0, 1.0), ("\0lost", 1.0, 0.0))


def compare_completions(
    evaluation: Evaluation,
    margins: Margins,
    resamples: int,
    seed: int,
    fewest: int = FEWEST_CLUSTERS,
) -> list[Comparison]:
    """Each metric of each style; arguments as in `comparison.compare`."""
    how = (evaluation.unit, margins, resamples, seed, fewest)
    return [
        _compared(metric, f"completion, {style}", found, *how)
        for style, found in by_style(evaluation.completions).items()
        for metric in COMPLETION_METRICS
        if metric.values(found) is not None
    ]


def _compared(
    metric: CompletionMetric,
    on: str,
    results: Sequence[CompletionResult],
    cluster: str,
    margins: Margins,
    resamples: int,
    seed: int,
    fewest: int,
) -> Comparison:
    terms = [
        (r.cluster, metric.term(r.base), metric.term(r.tuned), metric.weight(r)) for r in results
    ]
    added = [(*flip, 1.0) for flip in _FLIPS] if metric.is_flip else []
    clusters, base, tuned, weights = zip(*terms, *added, strict=True)
    found = cluster_inference.ratio_difference(
        clusters, base, tuned, weights, resamples=resamples, seed=seed
    )
    values = metric.values(results)
    assert values is not None
    units = found.units - len(added)
    found = replace(found, base=values[0], tuned=values[1], units=units)
    unit = plural(cluster, 2) if units < len(results) else "spans"
    if units >= fewest and found.low < found.high:
        compared = as_comparison(metric, on, found, unit, margins)
        return replace(compared, note=detectable_in_clusters(metric, compared))
    note = f"{on}: the two models differ on none of {len(results)} spans."
    if units < fewest:
        note = cluster_inference.too_few(on, units, unit, fewest)
    return replace(as_comparison(metric, on, found.without_interval(), unit, margins), note=note)
