"""The page of a sweep: one self-contained HTML file, and the same table for the terminal.

It is written again after every variant, so that it shows the state of a running sweep.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from flows import messages
from flows.sweep.grid import Variant
from flows.sweep.results import SweepResults
from flows.sweep.scores import Score
from flows.sweep.trials import comparisons
from tasks.core.rows.split_unit import FEWEST_CLUSTERS
from tasks.evaluation.report import plots
from tasks.evaluation.report.page import TEMPLATES as REPORT_TEMPLATES

TEMPLATES = Path(__file__).parent / "templates"
COLOURED = 6  # lines with different colors; the others are gray


def template(name: str) -> Template:
    """A template of this package; it may include those of the report."""
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, REPORT_TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = messages.duration
    return environment.get_template(name)


def learning_curves(runs: Sequence[tuple[str, Path]]) -> dict[str, Any] | None:
    """The curves of (name, artifact of a training), the first one on top; None without losses."""
    curves = plots.loss_curves([_metrics(folder) for _, folder in runs])
    if curves is None:
        return None
    lines = [
        {"points": points, "line": min(number, COLOURED), "label": label}
        for number, (points, (label, _)) in enumerate(zip(curves.lines, runs, strict=True))
    ]
    return {"x": curves.x, "y": curves.y, "lines": lines[::-1], "legend": lines}


def render(results: SweepResults, profile: Path, folder: Path) -> str:
    """The page.

    Args:
        results: The state of the sweep.
        profile: Its profile.
        folder: Of the page, to which links are relative.
    """
    rounds = [_round(results, one.share) for one in reversed(results.planned)]
    rounds = [one for one in rounds if one["rows"]]
    seconds = sum(result.seconds for result in results.found.values())
    return template("sweep.html").render(
        profile=profile.name,
        fixed=results.grid.fixed,
        fields=[name.partition(".")[2] for name in results.grid.fields],
        rounds=rounds,
        tried=len(results.grid.variants),
        pairs=comparisons(results.planned),
        seeds=len(results.seeds),
        failed=[(trial.name, why) for trial, why in results.failed.items()],
        winner=_winner(results, folder),
        clusters=_clusters(results),
        fewest=FEWEST_CLUSTERS,
        trainings=len(results.found),
        planned=sum(one.count for one in results.planned) * len(results.seeds),
        seconds=seconds,
        curves=_curves(results),
    )


def table(results: SweepResults) -> str:
    """The variants of the last round, the best first, for a terminal."""
    lines = []
    for variant, score in results.scores(results.planned[-1].share).items():
        apart = "the best" if not score.difference else _interval(score)
        lines.append(f"{variant.label:<40}{score.loss:.4f}  {apart}")
    return "\n".join(lines)


def _round(results: SweepResults, share: float) -> dict[str, Any]:
    """One table of variants, the best first."""
    scores = results.scores(share)
    ends = [x for s in scores.values() for x in (s.low, s.high, s.difference, 0.0) if x is not None]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    pad = 0.04 * max(high - low, 1e-9)
    low, high = low - pad, high + pad

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    rows = [_row(results, v, share, s, number, at) for number, (v, s) in enumerate(scores.items())]
    return {
        "share": share,
        "rows": rows,
        "zero": at(0.0),
        "scale": (_signed(low + pad, 3), _signed(high - pad, 3)),
        "base": _base_loss(results, share),
    }


def _row(
    results: SweepResults, variant: Variant, share: float, score: Score, number: int, at: Any
) -> dict[str, Any]:
    found = results.of(variant, share) or []
    speeds = [r.train.summary["metrics"].get("tokens_per_s", 0.0) for r in found]
    memory = max(r.train.summary["metrics"].get("peak_vram_gib", 0.0) for r in found)
    span = None
    if score.low is not None and score.high is not None:
        span = {"left": at(score.low), "width": round(at(score.high) - at(score.low), 2)}
    return {
        "values": [value for _, value in variant.values],
        "loss": f"{score.loss:.4f}",
        "accuracy": f"{100 * score.accuracy:.1f} %",
        "seeds": [f"{loss:.4f}" for loss in score.seeds],
        "difference": _signed(score.difference) if number else "best",
        "interval": _interval(score) if number else "",
        "worse": score.is_worse,
        "dot": at(score.difference),
        "span": span,
        "seconds": sum(r.seconds for r in found),
        "speed": f"{sum(speeds) / len(speeds):,.0f}",
        "memory": f"{memory:.2f}" if memory else "",
        "line": number if number < COLOURED else COLOURED,
    }


def _interval(score: Score) -> str:
    if score.low is None or score.high is None:
        return "no interval"
    how = "worse" if score.is_worse else "not significant"
    return f"{_signed(score.low)} to {_signed(score.high)}, {how}"


def _signed(value: float, digits: int = 4) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _curves(results: SweepResults) -> dict[str, Any] | None:
    """Learning curves of the variants of the longest round with results."""
    for one in reversed(results.planned):
        ranked = [(v, results.of(v, one.share) or []) for v in results.ranked(one.share)]
        runs = [(variant.label, found[0].folders["train"]) for variant, found in ranked]
        if curves := learning_curves(runs):
            return curves
    return None


def _metrics(training: Path) -> Sequence[Mapping[str, Any]]:
    """Records of metrics.jsonl of an artifact; none if it is gone."""
    path = training / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines()]


def _base_loss(results: SweepResults, share: float) -> str:
    found = [r for v in results.ranked(share) for r in results.of(v, share) or []]
    return f"{found[0].losses.base_loss:.4f}" if found else ""


def _clusters(results: SweepResults) -> int:
    """Projects of the validation split."""
    return max((len(set(r.losses.clusters)) for r in results.found.values()), default=0)


def _winner(results: SweepResults, folder: Path) -> dict[str, Any] | None:
    """The best variant on the test split."""
    if results.winner is None:
        return None
    best = results.best
    gate = json.loads((results.winner / "gate.json").read_bytes())
    return {
        "label": best.label,
        "ends": results.grid.ends(best),
        "verdict": gate["verdict"],
        "reasons": gate["reasons"],
        "report": os.path.relpath(results.winner / "report.html", folder),
    }
