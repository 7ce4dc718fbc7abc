"""Comparisons in words, the same in the gate's reasons and in the report."""

from tasks.evaluation.gate.comparison import Comparison
from tasks.evaluation.metrics.registry import named


def shown(c: Comparison, value: float) -> str:
    """A value of a comparison: nats with three digits, shares in percent."""
    return named(c.name).scale.value(value)


def shown_difference(c: Comparison, value: float) -> str:
    """A signed difference: nats with three digits, or points."""
    return named(c.name).scale.difference(value)


def unit(c: Comparison) -> str:
    """The unit of a difference."""
    return named(c.name).scale.unit


def shown_interval(c: Comparison) -> str:
    """The 95 % interval of a difference, such as "−0.3 to +1.2 points"; "" if there is none."""
    if c.low is None or c.high is None:
        return ""
    return f"{shown_difference(c, c.low)} to {shown_difference(c, c.high)} {unit(c)}"


def shown_values(c: Comparison) -> dict[str, str]:
    """The values of a comparison with their units, for readers of gate.json: the model card and
    the page of a run, which know no metrics."""
    return {
        "base": shown(c, c.base),
        "tuned": shown(c, c.tuned),
        "difference": f"{shown_difference(c, c.difference)} {unit(c)}",
        "interval": shown_interval(c) or "none",
    }


def change(c: Comparison, how: str) -> str:
    """One sentence: what changed, from which value to which, with the interval."""
    interval = shown_interval(c)
    bounds = f"95 % interval {interval}" if interval else "no interval"
    values = f"{shown(c, c.base)} → {shown(c, c.tuned)}"
    return f"{upper_first(c.name)} on {c.on} is {how}: {values} ({bounds})."


def breach(c: Comparison) -> str:
    """One sentence about a guarded value that is worse by more than its margin."""
    assert c.margin is not None
    margin = named(c.name).scale.margin(c.margin)
    return f"{change(c, 'worse')[:-1]}, more than the margin of {margin}."


def upper_first(text: str) -> str:
    """A phrase as the start of a sentence or cell; pass@1 keeps its small letter."""
    return text if text.startswith("pass@") else text[:1].upper() + text[1:]
