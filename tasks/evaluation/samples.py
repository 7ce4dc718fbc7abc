"""Texts of both models: held-out prompts for reading, problems for judging, lines to fill in.

Every text is looked up in the models' memories first; only what is new is generated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from tasks.core.rows.hash_rank import keyed_rank
from tasks.core.text import prompt_templates
from tasks.evaluation.generation import generate, stop_rules
from tasks.evaluation.generation.cached_generation import Decoding, Writers
from tasks.evaluation.metrics import infilling
from tasks.evaluation.metrics.infilling import Hole
from tasks.evaluation.problems import humaneval
from tasks.evaluation.problems.humaneval import Problem
from tasks.evaluation.problems.user_sets import Line
from tasks.evaluation.results import (
    ANSWER,
    INFILLING,
    PASS,
    WRONG,
    Attempt,
    ProblemResult,
    Sample,
)

_INFILLING_TOKENS = 96  # a line is shorter


@dataclass(frozen=True)
class Prompt:
    """One held-out row of `prompt.test`."""

    row_id: str
    project: str
    prompt: str
    completion: str


def projects(path: Path) -> dict[str, str]:
    """Row id -> project of a prompts file."""
    table = pq.read_table(path, columns=["row_id", "project"])
    return dict(zip(table["row_id"].to_pylist(), table["project"].to_pylist(), strict=True))


def choose_prompts(path: Path, row_ids: frozenset[str], count: int, seed: int) -> list[Prompt]:
    """A fixed choice of prompts.

    Args:
        path: Prompts file.
        row_ids: Rows that may be chosen: those that are measured.
        count: At most so many.
        seed: Another seed, another choice.
    """
    chosen = sorted(row_ids, key=lambda row: (keyed_rank(row, seed), row))[:count]
    wanted = set(chosen)
    found: dict[str, Prompt] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                if row["row_id"] in wanted:
                    found[row["row_id"]] = Prompt(**row)
    return [found[row] for row in chosen if row in found]


def read(
    writers: Writers, prompts: Sequence[Prompt], template: str, decoding: Decoding
) -> tuple[Sample, ...]:
    """Both models' answers to held-out prompts, beside what the data says."""
    if not prompts:
        return ()
    base, tuned = writers.write([p.prompt for p in prompts], decoding, "samples")
    end = prompt_templates.complete(template, "")
    return tuple(
        Sample(p.row_id, p.prompt, p.completion.removesuffix(end).rstrip(), b, t)
        for p, (b,), (t,) in zip(prompts, base, tuned, strict=True)
    )


def solve(
    writers: Writers,
    problems: Sequence[Problem],
    *,
    style: humaneval.Style,
    template: str,
    decoding: Decoding,
) -> list[ProblemResult]:
    """Both models' answers to problems of one suite, without verdicts yet.

    A raw completion is broken off once its function is closed: what follows would be cut anyway.
    """
    posed = [p for p in problems if style in humaneval.styles_of(p, (style,))]
    if not posed:
        return []
    texts = [humaneval.pose(p, style, template) for p in posed]

    def complete(index: int, text: str) -> bool:
        return stop_rules.is_function_closed(posed[index].prompt, text)

    label = f"{posed[0].suite} {style}"
    raw = style == "completion"
    base, tuned = writers.write(
        texts, decoding, label, complete if raw else None, stop_rules.FUNCTION if raw else ""
    )
    return [
        ProblemResult(p.suite, p.problem_id, style, text, b, t)
        for p, text, b, t in zip(posed, texts, base, tuned, strict=True)
    ]


def fill_in(writers: Writers, holes: Sequence[Hole], decoding: Decoding) -> list[ProblemResult]:
    """Both models' lines for holes, judged by exact match.

    Raises:
        MissingTokenError: The tokenizer has no tokens for it.
    """
    if not holes:
        return []
    one_line = Decoding(
        min(decoding.max_new_tokens, _INFILLING_TOKENS),
        decoding.batch,
        generate.stop_sequences(writers.pair.tokenizer, ""),
    )
    base, tuned = writers.write(
        [hole.prompt for hole in holes],
        one_line,
        infilling.SUITE,
        lambda index, text: stop_rules.is_line_closed(text),
        stop_rules.LINE,
    )
    return [
        ProblemResult(
            infilling.SUITE,
            hole.problem_id,
            INFILLING,
            hole.prompt,
            _matched(b, partial(infilling.is_right, hole)),
            _matched(t, partial(infilling.is_right, hole)),
            hole.line,
        )
        for hole, b, t in zip(holes, base, tuned, strict=True)
    ]


def answer(
    writers: Writers, name: str, lines: Sequence[Line], template: str, decoding: Decoding
) -> list[ProblemResult]:
    """Both models' answers to a set with reference answers, judged by exact match."""
    texts = [prompt_templates.render(template, line.prompt, line.input) for line in lines]
    base, tuned = writers.write(texts, decoding, name)
    return [
        ProblemResult(
            name,
            line.name,
            ANSWER,
            text,
            _matched(b, partial(_same, line.answer)),
            _matched(t, partial(_same, line.answer)),
            line.answer,
        )
        for line, text, b, t in zip(lines, texts, base, tuned, strict=True)
    ]


def _matched(attempts: tuple[Attempt, ...], is_right: Callable[[str], bool]) -> tuple[Attempt, ...]:
    return tuple(replace(a, verdict=PASS if is_right(a.text) else WRONG) for a in attempts)


def _same(one: str, other: str) -> bool:
    """Equal but for white space at the ends of lines and of the text."""
    lines = ([line.rstrip() for line in text.strip().splitlines()] for text in (one, other))
    first, second = lines
    return first == second
