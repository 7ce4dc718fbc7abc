"""Both models' completions of held-out spans, and their losses on the original text."""

from collections.abc import Sequence
from functools import partial

from tasks.core.settings.evaluate import EvaluateSettings
from tasks.core.text.row_encoder import RowEncoder
from tasks.core.text.special_tokens import MissingTokenError
from tasks.evaluation.completion import scores
from tasks.evaluation.completion.posed_span import BOTH, LEFT, SpanProblem, pose
from tasks.evaluation.completion.span_results import CompletionResult, SpanCompletion
from tasks.evaluation.completion.spans import CodeSpan, cut
from tasks.evaluation.generation import scope_end
from tasks.evaluation.generation.cached_generation import CachedGenerator, Decoding, StopRule
from tasks.evaluation.model_pair import ModelPair
from tasks.evaluation.results import Attempt, RowResult

LABEL = "completion"
NO_SUFFIX = "Completion with the suffix: the base model's tokenizer has no tokens for infilling."


def can_fill(pair: ModelPair) -> bool:
    """Whether the tokenizer has infilling tokens."""
    try:
        RowEncoder(pair.tokenizer).control.infilling()
    except MissingTokenError:
        return False
    return True


def complete(
    generator: CachedGenerator,
    spans: Sequence[CodeSpan],
    settings: EvaluateSettings,
    decoding: Decoding,
    losses: "partial[tuple[RowResult, ...]]",
) -> list[CompletionResult]:
    """Results of all spans, with left context alone and, where the base has infilling tokens, with
    the suffix.

    Args:
        generator: Both models.
        spans: What to write.
        settings: Of the stage.
        decoding: Greedy.
        losses: `ModelPair.losses` without rows, clusters, label and total.
    """
    results: list[CompletionResult] = []
    context, suffix_first = settings.completion_context, settings.fill_order == "suffix_first"
    for style in (LEFT, *((BOTH,) if can_fill(generator.pair) else ())):
        posed = [pose(span, style, context, suffix_first) for span in spans]
        results += _completed(generator, posed, decoding, losses, f"{LABEL}, {style}")
    return results


def _completed(
    generator: CachedGenerator,
    posed: Sequence[SpanProblem],
    decoding: Decoding,
    losses: "partial[tuple[RowResult, ...]]",
    label: str,
) -> list[CompletionResult]:
    """Results of problems of one style."""
    if not posed:
        return []
    rule = StopRule(
        scope_end.RULE,
        lambda index, text: _end(posed[index], text) is not None,
        # spans of two sizes can have one prompt
        tags=[p.span.size for p in posed],
    )
    answers = generator.complete([p.prompt for p in posed], decoding, label, rule)
    windows = generator.pair.answer_rows({p.span.name: (p.prompt, p.reference) for p in posed})
    total = sum(len(window.input_ids) for window in windows)
    rows = losses(windows, clusters={}, label=label, total=total)
    return [
        CompletionResult(
            span_id=p.span.name,
            cluster=p.span.source.cluster,
            language=p.span.source.language,
            size=p.span.size,
            style=p.style,
            prompt=p.prompt,
            reference=p.span.reference,
            text_bytes=row.text_bytes,
            base=_scored(p, base, row.base_loss_sum),
            tuned=_scored(p, tuned, row.tuned_loss_sum),
        )
        for p, ((base,), (tuned,)), row in zip(posed, answers, rows, strict=True)
    ]


def _end(problem: SpanProblem, text: str) -> int | None:
    return scope_end.end_of(problem.span.size, problem.before.rpartition("\n")[2], text)


def _scored(problem: SpanProblem, attempt: Attempt, loss_sum: float) -> SpanCompletion:
    text, reference = cut(problem.span.size, problem.before, attempt.text), problem.span.reference
    return SpanCompletion(
        text=text,
        tokens=attempt.tokens,
        stopped=attempt.stopped or _end(problem, attempt.text) is not None,
        exact=scores.is_exact(reference, text),
        similarity=scores.edit_similarity(reference, text),
        first_line=scores.has_first_line(reference, text),
        loss_sum=loss_sum,
    )
