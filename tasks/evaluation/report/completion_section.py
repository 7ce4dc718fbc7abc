"""The report's section about completed spans: values by size and language, and the clearest gains
and losses as diffs against the original text."""

import difflib
from collections.abc import Sequence
from typing import Any

from tasks.core.languages.registry import BY_NAME
from tasks.core.rows.split_unit import count_of
from tasks.core.text.special_tokens import readable
from tasks.evaluation.completion.span_results import (
    CompletionResult,
    SpanCompletion,
    by_style,
)
from tasks.evaluation.gate.comparison import Comparison
from tasks.evaluation.metrics.registry import COMPLETION_METRICS, named
from tasks.evaluation.metrics.summary import groups
from tasks.evaluation.report.side_by_side import visible
from tasks.evaluation.results import Evaluation

SHOWN = 3  # gains, and as many losses
CLEAR = 0.1  # of edit similarity; a smaller change is not shown
CONTEXT_LINES = 6
_KINDS = {"  ": "same", "- ": "missing", "+ ": "written"}


def section(evaluation: Evaluation, comparisons: Sequence[Comparison]) -> dict[str, Any] | None:
    """What the templates show; None where no span was completed."""
    if not evaluation.completions:
        return None
    styles = by_style(evaluation.completions)
    return {
        "metrics": [metric.name for metric in COMPLETION_METRICS],
        "tables": [
            {"style": style, "rows": _rows(found), "detectable": _detectable(style, comparisons)}
            for style, found in styles.items()
        ],
        "left_out": [
            f"{count_of(n, 'span')} that {why}" for why, n in evaluation.spans_left_out.items() if n
        ],
        "changes": [change for found in styles.values() for change in _changes(found)],
    }


def _rows(results: Sequence[CompletionResult]) -> list[dict[str, Any]]:
    """All spans, those of each size, and those of each language where there are several."""
    languages = [
        (BY_NAME[name].title if name in BY_NAME else name, own)
        for name, own in groups(results, "language")
    ]
    named_groups = [("all spans", list(results)), *groups(results, "size")]
    named_groups += languages if len(languages) > 1 else []
    return [
        {"name": name, "spans": len(own), "values": [_shown(m, own) for m in COMPLETION_METRICS]}
        for name, own in named_groups
    ]


def _shown(metric: Any, results: Sequence[CompletionResult]) -> str:
    values = metric.values(results)
    return " → ".join(map(metric.scale.value, values)) if values else "–"


def _detectable(style: str, comparisons: Sequence[Comparison]) -> str:
    """The smallest change of each metric that would be found."""
    known = [
        f"{c.name} {named(c.name).scale.margin(c.detectable)}"
        for c in comparisons
        if c.on == f"completion, {style}" and c.detectable
    ]
    return ", ".join(known)


def _changes(results: Sequence[CompletionResult]) -> list[dict[str, Any]]:
    """The clearest gains, then the clearest losses."""
    ranked = sorted(results, key=lambda r: (_gain(r), r.span_id))
    gains = [r for r in reversed(ranked) if _gain(r) >= CLEAR][:SHOWN]
    losses = [r for r in ranked if _gain(r) <= -CLEAR][:SHOWN]
    return [_change("gain", r) for r in gains] + [_change("loss", r) for r in losses]


def _gain(result: CompletionResult) -> float:
    return result.tuned.similarity - result.base.similarity


def _change(kind: str, result: CompletionResult) -> dict[str, Any]:
    prompt = visible(readable(result.prompt))
    return {
        "label": kind,
        "kind": "won" if kind == "gain" else "lost",
        "id": f"{result.span_id} · {result.style}",
        "before": "\n".join(prompt.split("\n")[-CONTEXT_LINES:]),
        "reference": visible(result.reference),
        "base": _against(result.reference, result.base),
        "tuned": _against(result.reference, result.tuned),
    }


def _against(reference: str, completion: SpanCompletion) -> dict[str, Any]:
    """A completion as a diff: lines of the file that are missing, and lines written instead."""
    lines = difflib.ndiff(visible(reference).split("\n"), visible(completion.text).split("\n"))
    return {
        "similarity": f"{100 * completion.similarity:.0f} %",
        "lines": [(_KINDS[line[:2]], line) for line in lines if line[:2] in _KINDS],
        "cut": "" if completion.stopped else "cut at the limit",
    }
