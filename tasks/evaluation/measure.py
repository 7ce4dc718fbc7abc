"""Everything that needs the models, which are gone when `measured` returns."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import Windows
from tasks.core.progress import say
from tasks.core.rows.data_card import Split, read_splits
from tasks.core.settings.config import View
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.core.text import prompt_templates
from tasks.core.text.special_tokens import MissingTokenError
from tasks.evaluation import samples
from tasks.evaluation.generation.cached_generation import Decoding, Writers
from tasks.evaluation.generation.sampling import Sampling
from tasks.evaluation.metrics import row_losses
from tasks.evaluation.model_pair import Pair
from tasks.evaluation.problems.grading import Memories
from tasks.evaluation.problems.humaneval import Problem
from tasks.evaluation.problems.prepare import Ready
from tasks.evaluation.results import Evaluation, ProblemResult, RowSet
from tasks.evaluation.timing import Clock

HELD_OUT, UNTOUCHED = "held-out", "untouched code"


def measured(
    config: View, inputs: Mapping[str, Path], clock: Clock, ready: Ready, memories: Memories
) -> tuple[Evaluation, int]:
    """Losses, texts and answers of both models; and held-out rows left out.

    Raises:
        PipelineError: There is no held-out row.
    """
    settings: EvaluateSettings = config.evaluate
    held_out = Windows.open(inputs["tokenize.test"])
    choice = row_losses.choose_rows(
        ((row.row_ids[0], len(row.input_ids)) for row in held_out.rows()),
        settings.max_test_tokens,
        settings.seed,
    )
    if not choice.row_ids:
        raise PipelineError(
            "the held-out split has 0 rows: base and tuned model can't be compared",
            "Give the test split a share of the data in the prompt section.",
        )
    pair = _loaded(config, inputs, clock)
    clusters = samples.projects(inputs["prompt.test"])
    template = str(config.prompt.template)
    chosen = (row for row in held_out.rows() if row.row_ids[0] in choice.row_ids)
    losses = partial(pair.losses, window_tokens=settings.window_tokens, clock=clock)
    rows = losses(chosen, clusters=clusters, label=HELD_OUT, total=choice.tokens)
    row_sets = [RowSet(HELD_OUT, rows)]
    if ready.probe:
        texts = pair.plain_rows({p.problem_id: p.prompt + p.solution for p in ready.probe})
        total = sum(len(text.input_ids) for text in texts)
        rows = losses(texts, clusters={}, label=UNTOUCHED, total=total)
        row_sets.append(RowSet(UNTOUCHED, rows, probe=True))
    for name, lines in ready.answers.items():
        answers = pair.answer_rows(
            {
                line.name: (
                    prompt_templates.render(template, line.prompt, line.input),
                    prompt_templates.complete(template, line.answer),
                )
                for line in lines
            }
        )
        total = sum(len(row.input_ids) for row in answers)
        row_sets.append(RowSet(name, losses(answers, clusters={}, label=name, total=total)))
    decoding = Decoding.of(
        pair.tokenizer, template, settings.max_new_tokens, settings.generation_batch
    )
    prompts = samples.choose_prompts(
        inputs["prompt.test"], choice.row_ids, settings.samples, settings.seed
    )
    writers = Writers(pair, clock, memories or None)
    problems, missing = _asked(settings, writers, ready, template, decoding)
    named = {clusters.get(row, row) for row in choice.row_ids}
    evaluation = Evaluation(
        row_sets=tuple(row_sets),
        samples=samples.read(writers, prompts, template, decoding),
        problems=tuple(problems),
        splits=(
            *read_splits(inputs),
            Split("test, measured", len(choice.row_ids), choice.tokens, len(named)),
        ),
        not_measured=missing,
    )
    return evaluation, choice.left_out


def _asked(
    settings: EvaluateSettings, writers: Writers, ready: Ready, template: str, greedy: Decoding
) -> tuple[list[ProblemResult], tuple[str, ...]]:
    """Answers to everything that is asked; a sentence for what can't be."""
    results: list[ProblemResult] = []
    drawn = replace(
        greedy,
        attempts=settings.attempts,
        sampling=Sampling(settings.temperature, settings.top_p, settings.seed),
    )
    for suite in _suites(ready.bench.problems if ready.bench else ()):
        styles = dict.fromkeys([*settings.styles, "prompt"])  # words are asked as a prompt
        for style in styles:
            posed = [p for p in suite if style in settings.styles or p.in_words]
            results += samples.solve(writers, posed, style=style, template=template, decoding=drawn)
    for name, lines in ready.answers.items():
        results += samples.answer(writers, name, lines, template, greedy)
    try:
        results += samples.fill_in(writers, ready.holes, greedy)
    except MissingTokenError:
        sentence = "Fill-in-the-middle: the base model's tokenizer has no tokens for it."
        say(sentence)
        return results, (sentence,)
    return results, ()


def _suites(problems: Iterable[Problem]) -> list[list[Problem]]:
    """Problems by suite, in their order."""
    suites: dict[str, list[Problem]] = {}
    for problem in problems:
        suites.setdefault(problem.suite, []).append(problem)
    return list(suites.values())


def _loaded(config: View, inputs: Mapping[str, Path], clock: Clock) -> Pair:
    with clock.measure("loading"):
        say("loading the base model and the adapter")
        return Pair.load(
            inputs["base.weights"],
            inputs["base.tokenizer"],
            inputs["train.adapter"],
            quantization=config.evaluate.quantization,
            device=config.hardware.device,
            dtype=config.evaluate.dtype,
            vram_gib=config.hardware.vram_gib,
        )
