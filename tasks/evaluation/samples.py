"""Texts of both models: held-out prompts for reading, and problems for judging."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tasks.core import templates
from tasks.core.progress import report
from tasks.evaluation import generation, humaneval
from tasks.evaluation.clock import Clock
from tasks.evaluation.humaneval import Problem
from tasks.evaluation.metrics import rank
from tasks.evaluation.pair import BASE, TUNED, Pair
from tasks.evaluation.results import Attempt, ProblemResult, Sample


@dataclass(frozen=True)
class Prompt:
    """One held-out row of `prompt.test`."""

    row_id: str
    project: str
    prompt: str
    completion: str


@dataclass(frozen=True)
class Decoding:
    """How texts are generated: greedily, and

    Attributes:
        max_new_tokens: Tokens to write at most.
        batch: Prompts continued together; None: as many as memory holds.
        stops: Token sequences that end an answer.
    """

    max_new_tokens: int
    batch: int | None
    stops: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, tokenizer: Any, template: str, max_new_tokens: int, batch: int | None
    ) -> "Decoding":
        """Ends at EOS and, where the template has one, at its end marker."""
        marker = "" if template == "completion" else templates.END
        return cls(max_new_tokens, batch, generation.stop_sequences(tokenizer, marker))


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
    chosen = sorted(row_ids, key=lambda row: (rank(row, seed), row))[:count]
    wanted = set(chosen)
    found: dict[str, Prompt] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                if row["row_id"] in wanted:
                    found[row["row_id"]] = Prompt(**row)
    return [found[row] for row in chosen if row in found]


def read(
    pair: Pair, prompts: Sequence[Prompt], decoding: Decoding, clock: Clock
) -> tuple[Sample, ...]:
    """Both models' answers to held-out prompts, beside what the data says."""
    if not prompts:
        return ()
    texts = [p.prompt for p in prompts]
    base, tuned = (
        _answers(pair, who, texts, decoding, label="samples", clock=clock) for who in (BASE, TUNED)
    )
    return tuple(
        Sample(p.row_id, p.prompt, until_marker(p.completion).rstrip(), b, t)
        for p, b, t in zip(prompts, base, tuned, strict=True)
    )


def solve(
    pair: Pair,
    problems: Sequence[Problem],
    *,
    style: humaneval.Style,
    template: str,
    decoding: Decoding,
    clock: Clock,
) -> list[ProblemResult]:
    """Both models' answers to problems, without verdicts yet.

    A raw completion is broken off once its function is closed: what follows would be cut anyway.
    """
    texts = [humaneval.pose(p, style, template) for p in problems]

    def complete(index: int, text: str) -> bool:
        return humaneval.is_complete(problems[index], text)

    base, tuned = (
        _answers(
            pair,
            who,
            texts,
            decoding,
            label=f"HumanEval {style}",
            clock=clock,
            complete=complete if style == "completion" else None,
        )
        for who in (BASE, TUNED)
    )
    return [
        ProblemResult(humaneval.SUITE, p.problem_id, style, text, (b,), (t,))
        for p, text, b, t in zip(problems, texts, base, tuned, strict=True)
    ]


def until_marker(text: str) -> str:
    """Text before the end marker; all of it where there is none."""
    return text.split(templates.END, 1)[0]


def _answers(
    pair: Pair,
    who: str,
    texts: Sequence[str],
    decoding: Decoding,
    *,
    label: str,
    clock: Clock,
    complete: Callable[[int, str], bool] | None = None,
) -> list[Attempt]:
    title = f"{label}, {who}"
    report(title, 0, len(texts))
    finished: list[int] = []

    def done(index: int, generated: generation.Generated) -> None:
        finished.append(generated.tokens)
        report(title, len(finished), len(texts), f"{sum(finished):,} tokens")

    with clock.measure(f"generation, {title}") as part:
        written = pair.generate(
            who,
            generation.encode(pair.tokenizer, texts),
            max_new_tokens=decoding.max_new_tokens,
            batch=decoding.batch,
            stops=decoding.stops,
            complete=complete,
            done=done,
        )
        part.tokens = sum(w.tokens for w in written)
    return [_attempt(pair.text(w.ids), w) for w in written]


def _attempt(text: str, written: generation.Generated) -> Attempt:
    """The marker may have come in other tokens than expected; it ends the answer all the same."""
    kept = until_marker(text)
    return Attempt(kept, written.tokens, stopped=written.stopped or len(kept) < len(text))
