"""Stage `evaluate`: adapter, base and held-out data -> metrics.json, gate.json and a report.

The base is loaded once, in 4 bit; the tuned model is that base with the adapter switched on.
HumanEval is tried in the sandbox before the model is loaded, so that what can't be run is known at
once. Times and memory stand in the report and in costs.json, never in an output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tasks.core.config import View
from tasks.core.errors import PipelineError
from tasks.core.modeling import free_gpu
from tasks.core.progress import report, say
from tasks.core.sandbox import LADDER, Limits, Sandbox
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.core.stage import Summary, Work
from tasks.core.windows import Windows
from tasks.evaluation import files, humaneval, metrics, samples, token_accuracy, verdicts
from tasks.evaluation import gate as gates
from tasks.evaluation.clock import Clock
from tasks.evaluation.humaneval import Problem
from tasks.evaluation.pair import Pair
from tasks.evaluation.results import INFRA, Evaluation, RowSet, Split
from tasks.evaluation.verdicts import Bench

HELD_OUT, UNTOUCHED = "held-out", "untouched code"


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """See the module."""
    settings, clock = config.evaluate, Clock()
    with clock.measure("self-test of HumanEval"):
        bench, probe, missing = prepare(settings)
    for sentence in missing:
        say(sentence)
    evaluation, left_out = _measured(config, inputs, clock, bench, probe)
    free_gpu()
    if bench is not None:
        with clock.measure("tests of HumanEval"):
            total = 2 * len(evaluation.problems)
            judged = verdicts.judge(
                bench, evaluation.problems, lambda count: report("HumanEval tests", count, total)
            )
        evaluation = replace(evaluation, problems=judged, sandbox=bench.sandbox.level)
    evaluation = replace(
        evaluation,
        not_measured=missing,
        settings=_facts(settings, str(config.prompt.template)),
        costs=clock.costs(),
    )
    gate = gates.decide(evaluation, **settings.gate.model_dump())
    files.write(evaluation, gate, inputs, work.out)
    accuracy = token_accuracy.of_rows(evaluation.row_sets[0].rows, work.scratch)
    return _summary(evaluation, gate, accuracy, left_out, clock.peak_vram_gib())


def prepare(
    settings: EvaluateSettings,
) -> tuple[Bench | None, tuple[Problem, ...], tuple[str, ...]]:
    """Get HumanEval ready before any model is loaded.

    Returns:
        A tested bench, None where nothing is to be run or can be; the problems whose text is the
        probe; a sentence for each thing that can't be measured.

    Raises:
        PipelineError: It can't be run, and `require_humaneval` is set.
    """
    if settings.humaneval_problems == 0 and settings.probe_problems == 0:
        return None, (), ()
    what, probe = "pass@1 and the loss on untouched code", tuple[Problem, ...]()
    try:
        problems = humaneval.load()
        probe = tuple(humaneval.choose(problems, settings.probe_problems, settings.seed))
        what = "pass@1 on HumanEval"
        if settings.humaneval_problems == 0:
            return None, probe, ()
        chosen = humaneval.choose(problems, settings.humaneval_problems, settings.seed)
        limits = Limits(memory_mib=settings.test_memory_mib)
        sandbox = Sandbox.best(settings.min_sandbox, limits, settings.test_workers)
        if sandbox.level != LADDER[0]:
            say(f"generated code runs under {sandbox.level}: {LADDER[0]} does not work here")
        return verdicts.self_test(sandbox, chosen, settings.test_timeout_s), probe, ()
    except PipelineError as error:
        if settings.require_humaneval:
            raise
        reason = f"{what} could not be measured: {error.problem}. {error.remedy}"
        return None, probe, (f"{reason} Then: finetune rerun evaluate",)


def _measured(
    config: View,
    inputs: Mapping[str, Path],
    clock: Clock,
    bench: Bench | None,
    probe: Sequence[Problem],
) -> tuple[Evaluation, int]:
    """Everything that needs the models, which are gone when this returns; and rows left out."""
    settings: EvaluateSettings = config.evaluate
    held_out = Windows.open(inputs["tokenize.test"])
    choice = metrics.choose_rows(
        ((row.row_ids[0], len(row.input_ids)) for row in held_out.rows()),
        settings.max_test_tokens,
        settings.seed,
    )
    if not choice.row_ids:
        raise PipelineError(
            "the held-out split has 0 rows: base and tuned model can't be compared",
            "Give the test split a share of the data in the prompt section.",
        )
    with clock.measure("loading"):
        say("loading the base model and the adapter")
        pair = Pair.load(
            inputs["base.weights"],
            inputs["base.tokenizer"],
            inputs["train.adapter"],
            quantization=settings.quantization,
            device=config.hardware.device,
            dtype=settings.dtype,
            vram_gib=config.hardware.vram_gib,
        )
    clusters = samples.projects(inputs["prompt.test"])
    chosen = (row for row in held_out.rows() if row.row_ids[0] in choice.row_ids)
    losses = partial(pair.losses, window_tokens=settings.window_tokens, clock=clock)
    rows = losses(chosen, clusters=clusters, label=HELD_OUT, total=choice.tokens)
    row_sets = [RowSet(HELD_OUT, rows)]
    if probe:
        texts = pair.plain_rows({p.problem_id: p.prompt + p.solution for p in probe})
        total = sum(len(text.input_ids) for text in texts)
        rows = losses(texts, clusters={}, label=UNTOUCHED, total=total)
        row_sets.append(RowSet(UNTOUCHED, rows, probe=True))
    template = str(config.prompt.template)
    decoding = samples.Decoding.of(
        pair.tokenizer, template, settings.max_new_tokens, settings.generation_batch
    )
    prompts = samples.choose_prompts(
        inputs["prompt.test"], choice.row_ids, settings.samples, settings.seed
    )
    problems = bench.problems if bench else ()
    named = {clusters.get(row, row) for row in choice.row_ids}
    evaluation = Evaluation(
        row_sets=tuple(row_sets),
        samples=samples.read(pair, prompts, decoding, clock),
        problems=tuple(
            result
            for style in (settings.styles if problems else ())
            for result in samples.solve(
                pair, problems, style=style, template=template, decoding=decoding, clock=clock
            )
        ),
        splits=(Split("test, measured", len(choice.row_ids), choice.tokens, len(named)),),
    )
    return evaluation, choice.left_out


def _facts(settings: EvaluateSettings, template: str) -> dict[str, Any]:
    """What the numbers depend on."""
    names = ("quantization", "dtype", "max_new_tokens", "generation_batch", "window_tokens", "seed")
    return {
        "decoding": "greedy",
        "template": template,
        **{name: getattr(settings, name) for name in names},
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
        style = c.on.partition("(")[2].rstrip(")")
        numbers[f"base_pass_at_1_{style}"] = c.base
        numbers[f"tuned_pass_at_1_{style}"] = c.tuned
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
