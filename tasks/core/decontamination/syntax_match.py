"""Syntax layer of decontamination: a function of the row has the shape of a problem's own.

The shape comes from the language's parser (`tasks.core.languages`); this module decides which texts
of a row are parsed.
"""

import re
from collections.abc import Iterator, Sequence

from tasks.core.decontamination.problem_index import Hit, ProblemIndex
from tasks.core.languages.protocol import ParsedSource
from tasks.core.languages.python.source import parse_python

FENCE = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
MAX_BLOCKS = 8  # fenced code blocks that are parsed per text


def find_shape(texts: Sequence[str], source: ParsedSource | None, index: ProblemIndex) -> list[Hit]:
    """The first problem whose function a row holds: layer "syntax".

    Args:
        texts: Instruction, input and output of the row.
        source: The output as a syntax tree; None if it does not parse.
        index: Of the problems.
    """
    if not index.shapes:
        return []
    for found in _sources(texts, source):
        for function in found.functions_and_methods():
            # the outline is far cheaper than the shape and differs for nearly every function
            if function.outline() in index.outlines:
                shape = function.shape()
                if shape is not None and shape in index.shapes:
                    evidence = f"function {function.name}, identifiers renamed"
                    return [Hit("syntax", index.shapes[shape], 1.0, evidence)]
    return []


def _sources(texts: Sequence[str], source: ParsedSource | None) -> Iterator[ParsedSource]:
    """The output, fenced code blocks of the row, and an input that is code."""
    if source is not None:
        yield source
    for text in texts:
        if "```" in text:
            for match in list(FENCE.finditer(text))[:MAX_BLOCKS]:
                if (fenced := parse_python(match[1])[0]) is not None:
                    yield fenced
    given = texts[1]
    if "def " in given and (asked := parse_python(given)[0]) is not None:
        yield asked
