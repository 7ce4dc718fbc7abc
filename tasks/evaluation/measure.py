"""The part of the evaluation that needs the models, which are freed when `measured` returns."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import Windows
from tasks.core.progress import say
from tasks.core.rows.data_card import DataCard, Split
from tasks.core.rows.row_schema import PART
from tasks.core.settings.config import View
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.core.text import prompt_templates
from tasks.core.text.prompt_templates import PromptTemplate
from tasks.core.text.special_tokens import MissingTokenError
from tasks.evaluation import answers
from tasks.evaluation.completion import measure as completion
from tasks.evaluation.completion.span_results import CompletionResult
from tasks.evaluation.generation.cached_generation import CachedGenerator, Decoding
from tasks.evaluation.generation.completion_cache import CompletionCache
from tasks.evaluation.generation.sampling import Sampling
from tasks.evaluation.model_pair import ModelPair
from tasks.evaluation.problems.prepare import Prepared
from tasks.evaluation.problems.protocol import Problem
from tasks.evaluation.results import (
    COMPLETION,
    HELD_OUT,
    PROMPT,
    Evaluation,
    ProblemResult,
    RowResult,
    RowSet,
)
from tasks.evaluation.row_losses import RowChoice, choose_rows
from tasks.evaluation.timing import Clock


def measured(
    config: View,
    inputs: Mapping[str, Path],
    clock: Clock,
    prepared: Prepared,
    caches: Mapping[str, CompletionCache],
) -> tuple[Evaluation, int]:
    """Losses and answers of both models, and the number of held-out rows left out.

    Raises:
        PipelineError: The held-out split is empty.
    """
    settings: EvaluateSettings = config.evaluate
    split_prompts = inputs[f"prompt.{settings.split}"]
    held_out = Windows.open(inputs[f"tokenize.{settings.split}"])
    choice = _chosen_rows(held_out, settings)
    pair = _loaded(config, inputs, clock)
    clusters = answers.units(split_prompts)
    # the further samples of a text are in its unit
    clusters |= {row: clusters.get(row.partition(PART)[0], row) for row in choice.row_ids}
    template = PromptTemplate(config.prompt.template, config.prompt.system, config.prompt.date)
    losses = partial(
        pair.losses,
        endings=pair.endings(template),
        window_tokens=settings.window_tokens,
        clock=clock,
    )
    row_sets = _row_sets(pair, held_out, choice, prepared, template, settings, losses, clusters)
    greedy = Decoding.of(
        pair.tokenizer, template, settings.max_new_tokens, settings.generation_batch
    )
    generator = CachedGenerator(pair, clock, caches)
    problems, missing = _answered(settings, generator, prepared, template, greedy)
    completions, unfilled = _completed(settings, generator, prepared, greedy, losses)
    prompts = answers.choose_prompts(split_prompts, choice.row_ids, settings.samples, settings.seed)
    named = {clusters.get(row, row) for row in choice.row_ids}
    evaluation = Evaluation(
        row_sets=row_sets,
        samples=answers.read(generator, prompts, template, greedy),
        problems=tuple(problems),
        completions=tuple(completions),
        spans_left_out=prepared.completion.left_out,
        splits=(
            *DataCard.read(inputs["tokenize.data_card"]).splits,
            Split(f"{settings.split}, measured", len(choice.row_ids), choice.tokens, len(named)),
        ),
        not_measured=(*missing, *unfilled),
    )
    names = answers.unit_names(inputs, named, evaluation.unit)
    return replace(evaluation, unit_names=names), choice.left_out


def _chosen_rows(held_out: Windows, settings: EvaluateSettings) -> RowChoice:
    """The held-out rows that are measured."""
    choice = choose_rows(
        ((row.row_ids[0], len(row.input_ids)) for row in held_out.rows()),
        settings.max_test_tokens,
        settings.seed,
    )
    if not choice.row_ids:
        raise PipelineError(
            f"the {_name(settings)} split has 0 rows: base and tuned model can't be compared",
            f"Give the {settings.split} split a share of the data in the prompt section.",
        )
    return choice


def _completed(
    settings: EvaluateSettings,
    generator: CachedGenerator,
    prepared: Prepared,
    greedy: Decoding,
    losses: "partial[tuple[RowResult, ...]]",
) -> tuple[list[CompletionResult], tuple[str, ...]]:
    """What both models write for parts of held-out code, and a sentence for what can't be
    measured."""
    spans = prepared.completion.spans
    if not spans:
        return [], ()
    results = completion.complete(generator, spans, settings, greedy, losses)
    return results, () if completion.can_fill(generator.pair) else (completion.NO_SUFFIX,)


def _name(settings: EvaluateSettings) -> str:
    """Name of the row set of the measured split."""
    return HELD_OUT if settings.split == "test" else settings.split


def _row_sets(
    pair: ModelPair,
    held_out: Windows,
    choice: RowChoice,
    prepared: Prepared,
    template: PromptTemplate,
    settings: EvaluateSettings,
    losses: "partial[tuple[RowResult, ...]]",
    clusters: Mapping[str, str],
) -> tuple[RowSet, ...]:
    """Losses on held-out rows, on untouched texts and on the user's sets of answers."""
    split = _name(settings)
    chosen = (row for row in held_out.rows() if row.row_ids[0] in choice.row_ids)
    rows = losses(chosen, clusters=clusters, label=split, total=choice.tokens)
    row_sets = [RowSet(split, rows)]
    others = []
    for kind, texts in prepared.probes.items():
        others.append((kind, pair.plain_rows(texts, settings.probe_tokens)))
    for name, lines in prepared.answers.items():
        pairs = {
            line.name: (
                prompt_templates.render(template, line.prompt, line.input),
                prompt_templates.complete(template, line.answer),
            )
            for line in lines
        }
        others.append((name, pair.answer_rows(pairs)))
    for name, windows in others:
        total = sum(len(window.input_ids) for window in windows)
        rows = losses(windows, clusters={}, label=name, total=total)
        row_sets.append(RowSet(name, rows, probe=name in prepared.probes))
    return tuple(row_sets)


def _answered(
    settings: EvaluateSettings,
    generator: CachedGenerator,
    prepared: Prepared,
    template: PromptTemplate,
    greedy: Decoding,
) -> tuple[list[ProblemResult], tuple[str, ...]]:
    """Answers to all problems, and a sentence for each kind that can't be measured."""
    results: list[ProblemResult] = []
    drawn = replace(
        greedy,
        attempts=settings.attempts,
        sampling=Sampling(settings.temperature, settings.top_p, settings.seed),
    )
    for suite in _suites(prepared.tested.problems if prepared.tested else ()):
        for style in dict.fromkeys([*settings.styles, PROMPT, COMPLETION]):
            # problems in words and in other languages have one style, whatever the settings are
            posed = [p for p in suite if style in settings.styles or p.in_words or p.language]
            if posed:
                results += answers.solve(
                    generator, posed, style=style, template=template, decoding=drawn
                )
    for name, lines in prepared.answers.items():
        results += answers.answer(generator, name, lines, template, greedy)
    try:
        results += answers.fill_in(generator, prepared.infilling, greedy)
    except MissingTokenError:
        sentence = "Fill-in-the-middle: the base model's tokenizer has no tokens for it."
        say(sentence)
        return results, (sentence,)
    return results, ()


def _suites(problems: Iterable[Problem]) -> Iterable[list[Problem]]:
    """Problems by suite, in their order."""
    suites: dict[str, list[Problem]] = {}
    for problem in problems:
        suites.setdefault(problem.suite, []).append(problem)
    return suites.values()


def _loaded(config: View, inputs: Mapping[str, Path], clock: Clock) -> ModelPair:
    with clock.measure("loading"):
        say("loading the base model and the adapter")
        return ModelPair.load(
            inputs["base.weights"],
            inputs["base.tokenizer"],
            inputs["train.adapter"],
            quantization=config.evaluate.quantization,
            device=config.hardware.device,
            dtype=config.evaluate.dtype,
            vram_gib=config.hardware.vram_gib,
        )
