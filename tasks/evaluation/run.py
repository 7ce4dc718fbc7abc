"""Stage `evaluate`: adapter, base and held-out data -> metrics.json, gate.json and a report.

The base is loaded once, in 4 bit; the tuned model is that base with the adapter switched on. Tests
are tried in the sandbox before the model is loaded, so that what can't be run is known at once.
Times and memory stand in the report and in costs.json, never in an output.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.core.cache.manifest import digest_of
from tasks.core.models.device import free_gpu
from tasks.core.progress import report, say
from tasks.core.settings.config import View
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.core.stage import Summary, Work
from tasks.evaluation import gate as gates
from tasks.evaluation.generation.completion_cache import Memory
from tasks.evaluation.measure import measured
from tasks.evaluation.metrics import token_accuracy
from tasks.evaluation.model_pair import BASE, TUNED
from tasks.evaluation.problems import grading
from tasks.evaluation.problems.grading import Memories
from tasks.evaluation.problems.humaneval import SUITE
from tasks.evaluation.problems.prepare import prepare
from tasks.evaluation.report import files
from tasks.evaluation.results import INFRA, Evaluation
from tasks.evaluation.timing import Clock


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """See the module."""
    settings, clock = config.evaluate, Clock()
    with clock.measure("self-test of the problems"):
        ready = prepare(settings, inputs.get("prompt.problems"))
    for sentence in ready.missing:
        say(sentence)
    with remembered(config, inputs, work.memory) as memories:
        evaluation, left_out = measured(config, inputs, clock, ready, memories)
        free_gpu()
        if ready.bench is not None:
            total = sum(len(p.base) + len(p.tuned) for p in evaluation.problems)
            with clock.measure("tests"):
                judged = grading.judge(
                    ready.bench,
                    evaluation.problems,
                    lambda count: report("tests", count, total),
                    memories,
                )
            sandbox = ready.bench.sandbox.level
            evaluation = replace(evaluation, problems=judged, sandbox=sandbox)
    evaluation = replace(
        evaluation,
        not_measured=(*ready.missing, *evaluation.not_measured),
        settings=_facts(settings, str(config.prompt.template)),
        costs=clock.costs(),
    )
    gate = gates.decide(evaluation, **settings.gate.model_dump())
    files.write(evaluation, gate, inputs, work.out)
    accuracy = token_accuracy.of_rows(evaluation.row_sets[0].rows, work.scratch)
    return _summary(evaluation, gate, accuracy, left_out, clock.peak_vram_gib())


@contextmanager
def remembered(config: View, inputs: Mapping[str, Path], folder: Path | None) -> Iterator[Memories]:
    """What base and tuned model wrote before, by their digests and how they are loaded."""
    settings = config.evaluate
    memories: dict[str, Memory] = {}
    if folder is not None:
        how = (settings.quantization, settings.dtype, config.hardware.device)
        base, adapter = (digest_of(inputs[name]) for name in ("base.weights", "train.adapter"))
        memories[BASE] = Memory.of(folder, base, *how)
        memories[TUNED] = Memory.of(folder, adapter, base, *how)
    try:
        yield memories
    finally:
        for memory in memories.values():
            memory.close()


def _facts(settings: EvaluateSettings, template: str) -> dict[str, Any]:
    """What the numbers depend on."""
    names = ("quantization", "dtype", "max_new_tokens", "generation_batch", "window_tokens", "seed")
    drawn = {name: getattr(settings, name) for name in ("top_p", "attempts")}
    drawn["pass_at"] = sorted({1, *settings.pass_at})
    return {
        "decoding": f"temperature {settings.temperature:g}" if settings.temperature else "greedy",
        **(drawn if settings.temperature else {}),
        "template": template,
        **{name: getattr(settings, name) for name in names},
        "generation_batch": settings.generation_batch or "by free memory",
        "resamples": settings.gate.resamples,
        "loss_margin_percent": settings.gate.loss_margin_percent,
        "pass_margin_points": settings.gate.pass_margin_points,
    }


def _summary(
    evaluation: Evaluation,
    gate: gates.Gate,
    accuracy: tuple[float, float],
    left_out: int,
    peak_vram_gib: float,
) -> Summary:
    """The line and the numbers that the terminal and the manifest show."""
    rows = evaluation.row_sets[0].rows
    tokens = sum(row.tokens for row in rows) or 1
    losses = [
        sum(row.base_loss_sum for row in rows) / tokens,
        sum(row.tuned_loss_sum for row in rows) / tokens,
    ]
    parts = [
        f"loss {losses[0]:.3f} -> {losses[1]:.3f}",
        f"token accuracy {accuracy[0]:.1%} -> {accuracy[1]:.1%}".replace("%", " %"),
    ]
    numbers = {
        "base_loss": losses[0],
        "tuned_loss": losses[1],
        "base_token_accuracy": accuracy[0],
        "tuned_token_accuracy": accuracy[1],
        "peak_vram_gib": peak_vram_gib,
    }
    for c in gate.comparisons:
        if c.name != "pass@1":
            continue
        if not any(part.startswith("pass@1") for part in parts):
            passed = [round(c.base * c.units), round(c.tuned * c.units)]
            parts.append(f"pass@1 {passed[0]}/{c.units} -> {passed[1]}/{c.units}")
        suite, _, style = c.on.rstrip(")").partition(" (")
        name = style if suite == SUITE else f"{suite}_{style}"
        numbers[f"base_pass_at_1_{name}"] = c.base
        numbers[f"tuned_pass_at_1_{name}"] = c.tuned
    attempts = [a for p in evaluation.problems for a in (*p.base, *p.tuned)]
    counts = {
        "rows over max_test_tokens": left_out,
        "rows without a labelled token": sum(row.tokens == 0 for row in rows),
        "programs that the sandbox failed": sum(a.verdict == INFRA for a in attempts),
    }
    return Summary(
        line=f"{', '.join(parts)}: {gate.verdict}",
        rows_in=len(rows) + left_out,
        rows_out=len(rows),
        counts={name: count for name, count in counts.items() if count},
        metrics=numbers,
    )
