"""Writes metrics.jsonl, loss.png and training.json beside the adapter; returns the summary."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.core.stage import Summary
from tasks.training.report.loss_plot import draw_loss
from tasks.training.report.metrics_log import (
    METRICS_FILE,
    Counters,
    read_metrics,
)
from tasks.training.report.trackers import STATE_FILE


def finish(
    scratch: Path, out: Path, facts: Mapping[str, Any], done: Counters, rows: int
) -> Summary:
    """Write the reports and summarize the run.

    Args:
        scratch: Holds the loop's metrics.
        out: Folder of the reports.
        facts: Entries of training.json about the run, peak_vram_gib among them.
        done: The loop's counters.
        rows: Rows in the training split.
    """
    shutil.copyfile(scratch / METRICS_FILE, out / METRICS_FILE)
    if (scratch / STATE_FILE).is_file():
        shutil.copyfile(scratch / STATE_FILE, out / STATE_FILE)
    lines = read_metrics(out / METRICS_FILE)
    draw_loss(lines, out / "loss.png")
    losses = [line["loss"] for line in lines if "loss" in line]
    held = [line for line in lines if "validation_loss" in line]
    speed = done.tokens / max(done.seconds, 1e-9)
    result = {
        **facts,
        **asdict(done),
        "tokens_per_step": done.tokens / max(1, done.step),
        "tokens_per_s": speed,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "validation": [_validation(line) for line in held],
    }
    text = json.dumps(result, indent=2, sort_keys=True) + "\n"
    (out / "training.json").write_text(text, encoding="utf-8")
    steps = {name: result[name] for name in ("step", "tokens", "validation")}
    (out / "steps.json").write_text(json.dumps(steps, indent=2) + "\n", encoding="utf-8")
    metrics = {"loss": losses[-1], "tokens_per_s": speed, "peak_vram_gib": facts["peak_vram_gib"]}
    shown = f"loss {losses[0]:.3f} -> {losses[-1]:.3f}"
    if held:
        metrics |= {
            "validation_loss_before": held[0]["validation_loss"],
            "validation_loss": held[-1]["validation_loss"],
            "validation_token_accuracy": held[-1]["validation_token_accuracy"],
        }
        first, last = held[0]["validation_loss"], held[-1]["validation_loss"]
        shown = f"validation loss {first:.3f} -> {last:.3f}"
    skipped = {
        "steps without a trained token": done.skipped,
        "steps skipped, beyond the range of float16": done.overflowed,
    }
    return Summary(
        f"{done.step:,} steps, {done.tokens:,} tokens, {shown}",
        rows_in=rows,
        counts={name: count for name, count in skipped.items() if count},
        metrics=metrics,
    )


def _validation(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "step": line["step"],
        "loss": line["validation_loss"],
        "token_accuracy": line["validation_token_accuracy"],
        "tokens": line["validation_tokens"],
    }
