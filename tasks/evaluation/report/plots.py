"""Plots of the report: coordinates in percent of their frame, which the template draws.

Plots are inline SVG and positioned text: the page stays one file, follows the light or dark theme,
and its labels stay readable on a phone, where a scaled bitmap would not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.evaluation.gate.comparison import Comparison

MAX_POINTS = 400  # more than a phone has pixels for
BAR = 25  # characters of an interval in text


@dataclass(frozen=True)
class Tick:
    """A label on an axis, at a percentage of its length."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """Training loss over steps.

    Attributes:
        raw: SVG points "x,y x,y" of the logged losses.
        smooth: The same, smoothed.
        validation: Points of the validation losses.
        x: Ticks of the steps.
        y: Ticks of the loss, at percent from the top.
        first: Mean loss of the first tenth of the run.
        last: Mean loss of the last tenth.
    """

    raw: str
    smooth: str
    validation: tuple[tuple[float, float], ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    first: float
    last: float


@dataclass(frozen=True)
class Curves:
    """Smoothed training losses of several runs.

    Attributes:
        lines: SVG points of each run; "" without losses.
        x: Ticks of the steps.
        y: Ticks of the loss, at percent from the top.
    """

    lines: tuple[str, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]


@dataclass(frozen=True)
class Span:
    """An interval on a line whose middle is zero, in percent of its width."""

    left: float
    width: float
    dot: float
    margin: float | None


def loss_curve(records: Sequence[Mapping[str, Any]]) -> Curve | None:
    """The curve of metrics.jsonl; None where fewer than two steps carry a finite loss."""
    losses = _series(records, "loss")
    if len(losses) < 2:
        return None
    held_out = _series(records, "eval_loss") or _series(records, "validation_loss")
    place, x, y = _axes(losses, held_out)
    tenth = max(1, len(losses) // 10)
    return Curve(
        raw=_points([place(*point) for point in _thinned(losses)]),
        smooth=_points([place(*point) for point in _thinned(_smoothed(losses))]),
        validation=tuple(place(*point) for point in held_out),
        x=x,
        y=y,
        first=sum(v for _, v in losses[:tenth]) / tenth,
        last=sum(v for _, v in losses[-tenth:]) / tenth,
    )


def loss_curves(runs: Sequence[Sequence[Mapping[str, Any]]]) -> Curves | None:
    """The smoothed training losses of several metrics.jsonl; None where none has two steps."""
    series = [_smoothed(losses) if len(losses := _series(r, "loss")) > 1 else [] for r in runs]
    if not any(series):
        return None
    place, x, y = _axes([point for losses in series for point in losses], [])
    lines = (_points([place(*p) for p in _thinned(losses)]) if losses else "" for losses in series)
    return Curves(tuple(lines), x, y)


def _axes(
    losses: Sequence[tuple[float, float]], held_out: Sequence[tuple[float, float]]
) -> tuple[Callable[[float, float], tuple[float, float]], tuple[Tick, ...], tuple[Tick, ...]]:
    """The place of (step, loss) in percent of the frame, and the ticks of both axes."""
    steps = [step for step, _ in [*losses, *held_out]]
    values = sorted(value for _, value in losses)
    top = max([values[min(len(values) - 1, int(0.99 * len(values)))]] + [v for _, v in held_out])
    ticks = nice_ticks(min([values[0]] + [v for _, v in held_out]), top)
    low, high = min(ticks[0], values[0]), max(ticks[-1], top)
    first_step, last_step = min(steps), max(steps)

    def place(step: float, value: float) -> tuple[float, float]:
        x = 100 * (step - first_step) / max(last_step - first_step, 1e-9)
        y = 100 * (high - min(value, high)) / max(high - low, 1e-9)
        return round(x, 2), round(y, 2)

    x = tuple(
        Tick(place(step, low)[0], f"{step:,.0f}")
        for step in nice_ticks(first_step, last_step)
        if first_step <= step <= last_step and step.is_integer()
    )
    decimals = max(len(f"{value:g}".partition(".")[2]) for value in ticks)
    y = tuple(Tick(place(first_step, value)[1], f"{value:.{decimals}f}") for value in ticks)
    return place, x, y


def reach(comparisons: Sequence[Comparison]) -> float:
    """The scale of a group of intervals: how far it reaches from zero to each side."""
    ends = [x for c in comparisons for x in (c.low, c.high, c.margin) if x is not None]
    return 1.08 * max([*map(abs, ends), 1e-9])


def span(c: Comparison, reach: float) -> Span | None:
    """The interval of a comparison around zero, on the scale of its group; right is better."""
    if c.low is None or c.high is None:
        return None
    sign = -1 if c.lower_is_better else 1

    def at(value: float) -> float:
        return round(50 + 50 * sign * value / reach, 2)

    left, right = sorted((at(c.low), at(c.high)))
    margin = None if c.margin is None else round(50 - 50 * c.margin / reach, 2)
    return Span(left=left, width=round(right - left, 2), dot=at(c.difference), margin=margin)


def text_bar(interval: Span | None) -> str:
    """An interval drawn in characters, for Markdown: `····┊│··━●━·`; "" none."""
    if interval is None:
        return ""
    cells = ["·"] * BAR

    def at(percent: float) -> int:
        return min(BAR - 1, int(BAR * percent / 100))

    for cell in range(at(interval.left), at(interval.left + interval.width) + 1):
        cells[cell] = "━"
    if interval.margin is not None:
        cells[at(interval.margin)] = "┊"
    cells[BAR // 2] = "│"
    cells[at(interval.dot)] = "●"
    return f"`{''.join(cells)}`"


def nice_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers that cover [low, high]: steps of 1, 2 or 5 times a power of ten."""
    width = max(high - low, 1e-6)
    power = 10.0 ** math.floor(math.log10(width / wanted))
    step = next(power * f for f in (1, 2, 5, 10) if width / (power * f) <= wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _series(records: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    found = []
    for record in records:
        step, value = record.get("step"), record.get(name)
        if not isinstance(step, (int, float)) or not isinstance(value, (int, float)):
            continue  # most records have a training loss, few a validation loss
        if math.isfinite(value):
            found.append((float(step), float(value)))
    return found


def _smoothed(series: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Centered moving mean over about a twentieth of the run."""
    reach = max(1, len(series) // 40)
    smooth = []
    for i, (step, _) in enumerate(series):
        near = series[max(0, i - reach) : i + reach + 1]
        smooth.append((step, sum(value for _, value in near) / len(near)))
    return smooth


def _thinned(series: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = math.ceil(len(series) / MAX_POINTS)
    kept = list(series[::stride])
    return kept if kept[-1] == series[-1] else [*kept, series[-1]]


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)
