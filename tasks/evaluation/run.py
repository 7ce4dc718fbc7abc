"""Stage `evaluate`: adapter, base and held-out data -> metrics.json, gate.json and a report.

The base is loaded once, in 4 bits; the tuned model is the base with the adapter switched on.
Problems are self-tested in the sandbox before the model is loaded, so that what can't be run is
known at once. Times and memory are in the report and in costs.json, never in an output.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.core.cache.manifest import digest_of
from tasks.core.models.device import free_gpu, pick_device, pick_dtype
from tasks.core.progress import report, say
from tasks.core.settings.config import View
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.core.stage import Summary, Work
from tasks.evaluation.completion import choose
from tasks.evaluation.completion.span_metrics import EDIT_SIMILARITY
from tasks.evaluation.completion.span_results import by_style
from tasks.evaluation.gate import verdict
from tasks.evaluation.generation.completion_cache import CompletionCache
from tasks.evaluation.measure import measured
from tasks.evaluation.metrics import hf_token_accuracy
from tasks.evaluation.metrics.pass_at_k import PASS_AT_1
from tasks.evaluation.metrics.protocol import row_sums
from tasks.evaluation.metrics.registry import ROW_METRICS
from tasks.evaluation.metrics.token_accuracy import TOKEN_ACCURACY
from tasks.evaluation.model_pair import BASE, TUNED
from tasks.evaluation.problems import grading
from tasks.evaluation.problems.humaneval import SUITE
from tasks.evaluation.problems.prepare import prepare
from tasks.evaluation.report import files
from tasks.evaluation.report.subject import read_subject
from tasks.evaluation.results import INFRA, NOT_JUDGED, Evaluation
from tasks.evaluation.timing import Clock


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """See the module."""
    settings, clock = config.evaluate, Clock()
    with clock.measure("self-test of the problems"):
        prepared = prepare(settings, inputs.get("prompt.problems"))
    with clock.measure("spans of held-out code"):
        prepared = replace(prepared, completion=choose.choose(settings, inputs))
    missing = [*prepared.missing, *filter(None, [prepared.completion.missing])]
    for sentence in missing:
        say(sentence)
    with completion_caches(config, inputs, work.memory) as caches:
        evaluation, left_out = measured(config, inputs, clock, prepared, caches)
        free_gpu()
        if prepared.tested is not None:
            total = sum(len(p.base) + len(p.tuned) for p in evaluation.problems)
            with clock.measure("tests"):
                graded = grading.grade(
                    prepared.tested,
                    evaluation.problems,
                    lambda count: report("tests", count, total),
                    caches,
                )
            sandbox = prepared.tested.sandbox.level
            evaluation = replace(evaluation, problems=graded, sandbox=sandbox)
    evaluation = replace(
        evaluation,
        not_measured=(*missing, *evaluation.not_measured),
        settings={
            **_settings(settings, str(config.prompt.template), _dtype(config)),
            **(grading.modes(prepared.tested.problems) if prepared.tested else {}),
        },
        costs=clock.costs(),
    )
    gate = verdict.decide(evaluation, **settings.gate.model_dump())
    subject = read_subject(inputs, work.profile, config.hardware.device)
    files.write(evaluation, gate, inputs, work.out, subject)
    # by the `evaluate` library, as the original recipe reports it
    accuracy = hf_token_accuracy.of_rows(evaluation.row_sets[0].rows, work.scratch)
    return _summary(evaluation, gate, accuracy, left_out, clock.peak_vram_gib)


@contextmanager
def completion_caches(
    config: View, inputs: Mapping[str, Path], folder: Path | None
) -> Iterator[dict[str, CompletionCache]]:
    """The caches of base and tuned model, by their digests and how they are loaded."""
    settings = config.evaluate
    with ExitStack() as opened:
        caches = {}
        if folder is not None:
            how = (settings.quantization, _dtype(config), config.hardware.device)
            base, adapter = (digest_of(inputs[name]) for name in ("base.weights", "train.adapter"))
            caches[BASE] = CompletionCache.of(folder, base, *how)
            caches[TUNED] = CompletionCache.of(folder, adapter, base, *how)
        for cache in caches.values():
            opened.enter_context(closing(cache))
        yield caches


def _dtype(config: View) -> str:
    """The compute type, which auto chooses by the GPU."""
    settings = config.evaluate
    device = pick_device(config.hardware.device)
    return pick_dtype(settings.dtype, device, settings.quantization)


def _settings(settings: EvaluateSettings, template: str, dtype: str) -> dict[str, Any]:
    """Settings that the numbers depend on, for metrics.json and the report."""
    names = ("quantization", "max_new_tokens", "generation_batch", "window_tokens", "seed")
    drawn = {name: getattr(settings, name) for name in ("top_p", "attempts")}
    drawn["pass_at"] = sorted({1, *settings.pass_at})
    return {
        "decoding": f"temperature {settings.temperature:g}" if settings.temperature else "greedy",
        **(drawn if settings.temperature else {}),
        "template": template,
        "split": settings.split,
        "loss_tokens": "content, without endings",
        "dtype": dtype,
        **{name: getattr(settings, name) for name in names},
        "generation_batch": settings.generation_batch or "by free memory",
        "resamples": settings.gate.resamples,
        "loss_margin_percent": settings.gate.loss_margin_percent,
        "pass_margin_points": settings.gate.pass_margin_points,
    }


def _summary(
    evaluation: Evaluation,
    gate: verdict.Gate,
    accuracy: tuple[float, float],
    left_out: int,
    peak_vram_gib: float,
) -> Summary:
    """The line and the numbers for terminal and manifest: compared metrics of held-out rows, and
    pass@1 of each suite and style."""
    rows = evaluation.row_sets[0].rows
    parts: list[str] = []
    numbers: dict[str, float] = {}
    for metric in ROW_METRICS:
        if metric.terms is not None:
            values = [metric.value(sums) or 0.0 if sums.tokens else 0.0 for sums in row_sums(rows)]
            base, tuned = accuracy if metric is TOKEN_ACCURACY else values
            parts.append(f"{metric.name} {metric.scale.value(base)} -> {metric.scale.value(tuned)}")
            numbers |= {f"base_{metric.key}": base, f"tuned_{metric.key}": tuned}
    for style, found in by_style(evaluation.completions).items():
        similarity = EDIT_SIMILARITY.values(found) or (0.0, 0.0)
        shown = " -> ".join(map(EDIT_SIMILARITY.scale.value, similarity))
        parts.insert(0, f"completion {style}: {EDIT_SIMILARITY.name} {shown}")
        name = f"{EDIT_SIMILARITY.key}_{style.replace(' ', '_')}"
        numbers |= {f"base_{name}": similarity[0], f"tuned_{name}": similarity[1]}
    numbers["peak_vram_gib"] = peak_vram_gib
    for at, c in enumerate(c for c in gate.comparisons if c.name == PASS_AT_1.name):
        if at == 0:
            passed = [f"{value * c.units:.0f}/{c.units}" for value in (c.base, c.tuned)]
            parts.append(f"pass@1 {' -> '.join(passed)}")
        suite, _, style = c.on.rstrip(")").partition(" (")
        name = style if suite == SUITE else f"{suite}_{style}"
        numbers |= {f"base_pass_at_1_{name}": c.base, f"tuned_pass_at_1_{name}": c.tuned}
    attempts = [a for p in evaluation.problems for a in (*p.base, *p.tuned)]
    counts = {
        "rows over max_test_tokens": left_out,
        "rows without labelled content": sum(row.tokens == 0 for row in rows),
        "programs that the sandbox failed": sum(a.outcome == INFRA for a in attempts),
        **{f"spans that {why}": n for why, n in evaluation.spans_left_out.items()},
        "answers not judged": sum(a.outcome == NOT_JUDGED for a in attempts),
    }
    return Summary(
        line=f"{', '.join(parts)}: {gate.verdict}",
        rows_in=len(rows) + left_out,
        rows_out=len(rows),
        counts={name: count for name, count in counts.items() if count},
        metrics=numbers,
    )
