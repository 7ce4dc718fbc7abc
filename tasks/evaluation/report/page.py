"""The report: one self-contained HTML page, and the same in Markdown with fewer and shorter texts.

Generated texts are untrusted: the HTML template escapes every value and forbids scripts and
requests; in Markdown, texts are in fenced blocks that they can't close.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from tasks.core.rows.split_unit import count_of
from tasks.core.text.durations import duration
from tasks.evaluation.gate import wording
from tasks.evaluation.gate.comparison import Comparison
from tasks.evaluation.gate.verdict import Gate
from tasks.evaluation.metrics import summary
from tasks.evaluation.metrics.protocol import Metric
from tasks.evaluation.metrics.registry import ROW_METRICS, named, problem_metrics
from tasks.evaluation.report import completion_section, ending_words, plots, side_by_side
from tasks.evaluation.report.format_values import scalar
from tasks.evaluation.report.other_stages import OtherStages
from tasks.evaluation.report.subject import UNKNOWN, Subject
from tasks.evaluation.report.training_facts import training_facts
from tasks.evaluation.results import (
    HELD_OUT,
    NOT_JUDGED,
    NOT_RUN,
    PROMPT,
    Evaluation,
    by_suite,
)

TEMPLATES = Path(__file__).parent / "templates"
FEW_TEXT = 1_000  # characters of one text in Markdown


def html(
    evaluation: Evaluation, gate: Gate, others: OtherStages, subject: Subject = UNKNOWN
) -> str:
    """The page."""
    return _template("report.html").render(_view(evaluation, gate, others, subject))


def markdown(
    evaluation: Evaluation, gate: Gate, others: OtherStages, subject: Subject = UNKNOWN
) -> str:
    """The page as Markdown."""
    return _template("report.md").render(_view(evaluation, gate, others, subject))


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "md": _markdown_text,
        "fenced": fenced,
        "bar": plots.text_bar,
        "duration": duration,
        "upper_first": wording.upper_first,
        "unbroken": _unbroken,
    }
    return environment.get_template(name)


def _markdown_text(text: str) -> str:
    """Text that stays in one table cell and contains no markup."""
    for character in "\\`*_|<>[]":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())


def _unbroken(text: str) -> str:
    """Text in which no line ends between a number and its unit."""
    return re.sub(r"(?<=\d) (?=%|nats|points)", "\N{NO-BREAK SPACE}", text)


def fenced(text: str) -> str:
    """Text as a code block that it can't close: the fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{side_by_side.cut(text, FEW_TEXT)}\n{fence}"


def _view(
    evaluation: Evaluation, gate: Gate, others: OtherStages, subject: Subject
) -> dict[str, Any]:
    """Everything that the templates show, in the order of the page."""
    numbers = summary.metrics(evaluation)
    groups = _groups(gate.comparisons)
    return {
        "title": subject.title,
        "subject": subject.facts,
        "verdict": gate.verdict,
        "reasons": gate.reasons,
        "groups": groups,
        "drawn": [g for g in groups if any(c["span"] for c in g["comparisons"])],
        "warnings": gate.warnings,
        "notes": [note for note in gate.notes if note not in gate.reasons],
        "completion": completion_section.section(evaluation, gate.comparisons),
        "also": _also_measured(evaluation, numbers),
        "stopping": ending_words.sentence(evaluation),
        "curve": plots.loss_curve(others.curve),
        "held_out": next(
            (
                (wording.shown(c, c.base), wording.shown(c, c.tuned))
                for c in gate.comparisons
                if (c.name, c.on) == ("loss", HELD_OUT)
            ),
            None,
        ),
        "training": training_facts(others.training),
        "funnel": others.funnel_bars(),
        "splits": evaluation.splits,
        "unit": evaluation.unit,
        "split": others.split,
        "licences": others.licence_shares(),
        "lineage": others.lineage,
        **side_by_side.answers(evaluation),
        "costs": evaluation.costs,
        "sandbox": evaluation.sandbox,
        "not_measured": [*evaluation.not_measured, *_left_out(evaluation, numbers)],
        "settings": sorted((k, scalar(v)) for k, v in evaluation.settings.items()),
    }


def _left_out(evaluation: Evaluation, numbers: Mapping[str, Any]) -> list[str]:
    """A sentence for each suite with problems that count for neither model."""
    reasons = {
        "infra": "the sandbox failed on them",
        "not_judged": "not judged, as their tests need the answer in their own process, which "
        "evaluate.sets.mode isolated excludes",
    }
    said = []
    for (suite, style), problems in by_suite(evaluation.problems).items():
        on = f"{suite} ({style})"
        counts = {**dict.fromkeys(reasons, 0), **numbers["problems"][on]}
        not_run = Counter(p.base[0].detail for p in problems if p.base[0].outcome == NOT_JUDGED)
        not_run = Counter({why: n for why, n in not_run.items() if why.startswith(NOT_RUN)})
        counts["not_judged"] -= not_run.total()
        found = [(counts[key], why) for key, why in reasons.items()]
        found += [(n, why) for why, n in not_run.items()]
        said += [
            f"{n} of {len(problems)} problems of {on} are left out: {why}." for n, why in found if n
        ]
    return said


def _groups(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The comparisons of each metric, whose intervals share one scale."""
    by_metric: dict[str, list[Comparison]] = {}
    for c in comparisons:
        by_metric.setdefault(c.name, []).append(c)
    groups = []
    for name, found in by_metric.items():
        reach, scale = plots.reach(found), named(name).scale
        groups.append(
            {
                "name": name,
                "unit": scale.unit,
                "better": "lower" if found[0].lower_is_better else "higher",
                "reach": scale.margin(reach),
                "comparisons": [_comparison(c, reach) for c in found],
            }
        )
    return groups


def _comparison(c: Comparison, reach: float) -> dict[str, Any]:
    bounds = None
    if c.low is not None and c.high is not None:
        bounds = (wording.shown_difference(c, c.low), wording.shown_difference(c, c.high))
    margin = None
    if c.margin is not None:
        margin = wording.shown_difference(c, c.margin if c.lower_is_better else -c.margin)
    return {
        "name": c.name,
        "on": c.on,
        "base": wording.shown(c, c.base),
        "tuned": wording.shown(c, c.tuned),
        "difference": wording.shown_difference(c, c.difference),
        "unit": wording.unit(c),
        "interval": bounds,
        "p": "< 0.001" if c.p_adjusted < 0.001 else f"{c.p_adjusted:.3f}",
        "units": count_of(c.units, c.unit.removesuffix("s")),
        "margin": margin,
        "outcome": "breached" if c.breached else c.outcome,
        "span": plots.span(c, reach),
    }


def _also_measured(
    evaluation: Evaluation, numbers: Mapping[str, Any]
) -> list[tuple[str, str, str, str]]:
    """(metric, on, base, tuned) of the metrics that are not compared."""
    found: list[tuple[Metric, str, Mapping[str, Any]]] = []
    for on, values in numbers["rows"].items():
        found += [(m, on, values) for m in ROW_METRICS if m.terms is None]
    ks = evaluation.settings.get("pass_at", (1,))
    styles = {f"{suite} ({style})": style for suite, style in by_suite(evaluation.problems)}
    measured = [(on, style, numbers["problems"][on]) for on, style in styles.items()]
    for on, style, values in [*measured, ("held-out samples", PROMPT, numbers["samples"])]:
        metrics = problem_metrics(style, ks)
        found += [(m, on, values) for m in metrics if m.share is None and m.is_shown(style)]
    rows = []
    for m, on, values in found:
        base, tuned = (values[who].get(m.key) for who in ("base", "tuned"))
        if base is not None and tuned is not None:
            rows.append((m.name, on, m.scale.value(base), m.scale.value(tuned)))
    return rows
