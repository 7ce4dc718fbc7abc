"""Answers of both models: to held-out prompts for reading, to problems, and to masked lines."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.rows.hash_rank import keyed_rank
from tasks.core.text import prompt_templates
from tasks.core.text.prompt_templates import Template
from tasks.evaluation.completion import infilling
from tasks.evaluation.completion.infilling import InfillingProblem
from tasks.evaluation.completion.scores import is_exact
from tasks.evaluation.generation import generate, stop_rules
from tasks.evaluation.generation.cached_generation import CachedGenerator, Decoding, StopRule
from tasks.evaluation.problems import posing
from tasks.evaluation.problems.protocol import Problem
from tasks.evaluation.problems.user_sets import SetLine
from tasks.evaluation.results import (
    ANSWER,
    COMPLETION,
    INFILLING,
    PASS,
    WRONG,
    AnsweredPrompt,
    Attempts,
    ProblemResult,
)

_INFILLING_TOKENS = 96  # more than a line has


@dataclass(frozen=True)
class HeldOutPrompt:
    """One row of `prompt.test`."""

    row_id: str
    project: str
    prompt: str
    completion: str


def unit_names(inputs: Mapping[str, Path], units: Collection[str], unit: str) -> dict[str, str]:
    """Names of units of the split that are known by the least id of their rows: the path of a file
    or folder. Projects name themselves, and clusters have no better name."""
    if unit not in ("file", "folder"):
        return {}
    columns, named = ["row_id", "path"], pc.field("row_id").isin(sorted(units))
    table = pq.read_table(inputs["filter.kept"], columns=columns, filters=named)
    paths = zip(*(table[name].to_pylist() for name in columns), strict=True)
    return {row: path if unit == "file" else f"{Path(path).parent}/" for row, path in paths}


def units(path: Path) -> dict[str, str]:
    """Row id -> unit of the split, of a prompts file."""
    table = pq.read_table(path, columns=["row_id", "project"])
    return dict(zip(table["row_id"].to_pylist(), table["project"].to_pylist(), strict=True))


def choose_prompts(
    path: Path, row_ids: frozenset[str], count: int, seed: int
) -> list[HeldOutPrompt]:
    """A fixed choice of prompts.

    Args:
        path: Prompts file.
        row_ids: Rows to choose from: those that are measured.
        count: At most.
        seed: Another seed, another choice.
    """
    chosen = sorted(row_ids, key=lambda row: (keyed_rank(row, seed), row))[:count]
    wanted = set(chosen)
    found: dict[str, HeldOutPrompt] = {}
    with pq.ParquetFile(path) as file:
        columns = [field.name for field in fields(HeldOutPrompt)]
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist():
                if row["row_id"] in wanted and row["prompt"]:  # a plain text has none
                    found[row["row_id"]] = HeldOutPrompt(**row)
    return [found[row] for row in chosen if row in found]


def read(
    generator: CachedGenerator,
    prompts: Sequence[HeldOutPrompt],
    template: Template,
    decoding: Decoding,
) -> tuple[AnsweredPrompt, ...]:
    """Both models' answers to held-out prompts, with the answer of the data."""
    if not prompts:
        return ()
    answers = generator.complete([p.prompt for p in prompts], decoding, "samples")
    end = prompt_templates.complete(template, "")
    return tuple(
        AnsweredPrompt(p.row_id, p.prompt, p.completion.removesuffix(end).rstrip(), base, tuned)
        for p, ((base,), (tuned,)) in zip(prompts, answers, strict=True)
    )


def solve(
    generator: CachedGenerator,
    problems: Sequence[Problem],
    *,
    style: str,
    template: Template,
    decoding: Decoding,
) -> list[ProblemResult]:
    """Both models' answers to problems of one suite, not graded yet.

    A raw completion ends once its function is closed: what follows would be cut anyway.
    """
    posed = [p for p in problems if style in posing.styles_of(p, (style,))]
    results = []
    for python in (True, False):
        own = [p for p in posed if bool(p.language) != python]
        results += _ask(
            generator,
            problems[0].suite,
            style,
            [(p.problem_id, posing.pose(p, style, template), "") for p in own],
            decoding,
            label=f"{problems[0].suite} {style}{'' if python else ', other languages'}",
            rule=_stop_rule(own, python) if style == COMPLETION else None,
        )
    return results


def _stop_rule(problems: Sequence[Problem], python: bool) -> StopRule:
    if python:
        return StopRule(
            stop_rules.FUNCTION,
            lambda index, text: stop_rules.is_function_closed(problems[index].prompt, text),
        )

    def is_complete(index: int, text: str) -> bool:
        asked = problems[index]
        return stop_rules.answer_end(asked.prompt, asked.stop_words, text) is not None

    tags = [json.dumps(p.stop_words) for p in problems]
    return StopRule(stop_rules.OTHER_LANGUAGE, is_complete, tags)


def fill_in(
    generator: CachedGenerator, problems: Sequence[InfillingProblem], decoding: Decoding
) -> list[ProblemResult]:
    """Both models' lines for masked ones, graded by exact match.

    Raises:
        MissingTokenError: The tokenizer has no tokens for it.
    """
    if not problems:
        return []
    one_line = Decoding(
        min(decoding.max_new_tokens, _INFILLING_TOKENS),
        decoding.batch,
        generate.stop_sequences(generator.pair.tokenizer, ""),
    )
    results = _ask(
        generator,
        infilling.SUITE,
        INFILLING,
        [(p.problem_id, p.prompt, p.line) for p in problems],
        one_line,
        label=infilling.SUITE,
        rule=StopRule(stop_rules.LINE, lambda index, text: stop_rules.is_line_closed(text)),
    )
    return _matched(results, infilling.is_right)


def answer(
    generator: CachedGenerator,
    name: str,
    lines: Sequence[SetLine],
    template: Template,
    decoding: Decoding,
) -> list[ProblemResult]:
    """Both models' answers to a set with reference answers, graded by exact match."""
    asked = [
        (line.name, prompt_templates.render(template, line.prompt, line.input), line.answer)
        for line in lines
    ]
    return _matched(_ask(generator, name, ANSWER, asked, decoding, label=name), is_exact)


def _ask(
    generator: CachedGenerator,
    suite: str,
    style: str,
    asked: Sequence[tuple[str, str, str]],
    decoding: Decoding,
    *,
    label: str,
    rule: StopRule | None = None,
) -> list[ProblemResult]:
    """Results without outcomes, of (id, prompt, reference)."""
    if not asked:
        return []
    answers = generator.complete([prompt for _, prompt, _ in asked], decoding, label, rule)
    return [
        ProblemResult(suite, name, style, prompt, base, tuned, reference)
        for (name, prompt, reference), (base, tuned) in zip(asked, answers, strict=True)
    ]


def _matched(
    results: Sequence[ProblemResult], is_right: Callable[[str, str], bool]
) -> list[ProblemResult]:
    """Outcomes by comparing (reference, text)."""

    def graded(reference: str, attempts: Attempts) -> Attempts:
        return tuple(
            replace(a, outcome=PASS if is_right(reference, a.text) else WRONG) for a in attempts
        )

    return [
        replace(r, base=graded(r.reference, r.base), tuned=graded(r.reference, r.tuned))
        for r in results
    ]
