"""A span as a prompt: with left context alone, or with the suffix, in the base's infilling form."""

from dataclasses import dataclass

from tasks.core.text import prompt_templates
from tasks.evaluation.completion.spans import CodeSpan

LEFT, BOTH = "left context", "with suffix"
_PREFIX_SHARE = 0.75  # of the context, where there is a suffix


@dataclass(frozen=True)
class SpanProblem:
    """A span as it is posed.

    Attributes:
        span: The span.
        style: `LEFT` or `BOTH`.
        prompt: Text that the model continues.
        before: The text before the completion, which determines where its scope ends.
        reference: What the model should write next, with the white space before it.
    """

    span: CodeSpan
    style: str
    prompt: str
    before: str
    reference: str


def pose(span: CodeSpan, style: str, context: int, suffix_first: bool = False) -> SpanProblem:
    """A span as a prompt.

    Without a suffix, white space at the end of the prompt becomes a part of the reference, as it
    would split the tokens of an indentation (`problems.posing`).

    Args:
        span: What to write.
        style: `LEFT` or `BOTH`.
        context: Characters around the span that are given; they are cut at their far ends.
        suffix_first: Give the suffix before the prefix.
    """
    text, head = span.source.text, span.source.head
    if style == LEFT:
        prefix = head + _last(text[: span.start], context)
        given = prefix.rstrip()
        return SpanProblem(span, style, given, given, prefix[len(given) :] + span.reference)
    after = text[span.end :]
    prefix = head + _last(text[: span.start], int(_PREFIX_SHARE * context))
    suffix = after[: max(0, context - len(prefix))]
    prompt = prompt_templates.fill_prompt(prefix, suffix, suffix_first)
    return SpanProblem(span, style, prompt, prefix, span.reference)


def _last(text: str, characters: int) -> str:
    """The end of a text, from the begin of a line if there is one."""
    if len(text) <= characters:
        return text
    kept = text[len(text) - characters :]
    return kept[kept.find("\n") + 1 :]
