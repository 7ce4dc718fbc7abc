"""loss.png: training loss, its running mean and validation losses over the steps.

Without a background, in colors with a contrast of 3:1 on a white and on a dark page.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LOSS, MEAN, HELD_OUT, INK = "#6f93c6", "#2f74d0", "#d1495b", "#7a7a7a"


def running_mean(values: Sequence[float], half_life: float) -> list[float]:
    """Exponential moving average with bias correction; `half_life` in values."""
    decay = 0.5 ** (1.0 / max(half_life, 1e-9))
    mean, weight, result = 0.0, 0.0, []
    for value in values:
        mean = decay * mean + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        result.append(mean / weight)
    return result


def draw_loss(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the lines of a metrics.jsonl as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    train = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    held = [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]
    figure, axes = plt.subplots(figsize=(8, 4.2), dpi=150, layout="constrained")
    if train:
        steps, losses = zip(*train, strict=True)
        axes.plot(steps, losses, color=LOSS, linewidth=0.9, label="training, a logged step")
        smooth = running_mean(losses, half_life=max(2.0, len(losses) / 40))
        axes.plot(steps, smooth, color=MEAN, linewidth=1.8, label="training, running mean")
        low, high = np.percentile([*losses, *(loss for _, loss in held)], [0, 99])
        margin = 0.08 * max(high - low, 1e-3)
        axes.set_ylim(low - margin, high + margin)
    if held:
        steps, losses = zip(*held, strict=True)
        axes.plot(steps, losses, "o--", color=HELD_OUT, linewidth=1, ms=5, label="validation")
        for step, loss in (held[0], held[-1]):
            axes.annotate(
                f"{loss:.3f}",
                (step, loss),
                xytext=(0, 8),
                textcoords="offset points",
                ha="left" if step == held[0][0] else "right",
                color=HELD_OUT,
                fontsize=9,
            )
    axes.set_xlabel("optimizer step", color=INK)
    axes.set_ylabel("loss, nats per token", color=INK)
    axes.grid(axis="y", color=INK, linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(INK)
    axes.tick_params(colors=INK)
    if train or held:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    figure.savefig(path, transparent=True)
    plt.close(figure)
