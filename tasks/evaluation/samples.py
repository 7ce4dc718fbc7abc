"""Texts of both models: held-out prompts for reading, problems for judging, lines to fill in.

Every text is looked up in the models' memories first; only what is new is generated.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tasks.core import templates
from tasks.core.marks import mark
from tasks.core.progress import report
from tasks.evaluation import generation, humaneval, infilling
from tasks.evaluation.clock import Clock
from tasks.evaluation.generation import GREEDY, Generated, Sampling
from tasks.evaluation.humaneval import Problem
from tasks.evaluation.infilling import Hole
from tasks.evaluation.memory import (
    GENERATION,
    LIBRARIES,
    Memory,
    from_plain,
    key_of,
    maker,
    to_plain,
)
from tasks.evaluation.metrics import rank
from tasks.evaluation.pair import BASE, TUNED, Pair
from tasks.evaluation.results import (
    ANSWER,
    INFILLING,
    PASS,
    WRONG,
    Attempt,
    ProblemResult,
    Sample,
)
from tasks.evaluation.sets import Line
from tasks.evaluation.verdicts import Memories

_INFILLING_TOKENS = 96  # a line is shorter


@dataclass(frozen=True)
class Prompt:
    """One held-out row of `prompt.test`."""

    row_id: str
    project: str
    prompt: str
    completion: str


@dataclass(frozen=True)
class Decoding:
    """How texts are generated.

    Attributes:
        max_new_tokens: Tokens to write at most.
        batch: Prompts continued together; None: as many as memory holds.
        stops: Token sequences that end an answer.
        marker: Text that ends an answer, however it is cut into tokens; "" none.
        attempts: Answers to each prompt.
        sampling: How tokens are picked.
    """

    max_new_tokens: int
    batch: int | None
    stops: tuple[tuple[int, ...], ...]
    marker: str = ""
    attempts: int = 1
    sampling: Sampling = GREEDY

    @classmethod
    def of(
        cls, tokenizer: Any, template: str, max_new_tokens: int, batch: int | None
    ) -> "Decoding":
        """One greedy answer, which ends at EOS and where the template says that it does."""
        end = mark("end") if template == "chat" else templates.end_of(template)
        stops = generation.stop_sequences(tokenizer, end)
        return cls(max_new_tokens, batch, stops, "" if template == "chat" else end)


class Writers:
    """Base and tuned model at work.

    Attributes:
        pair: Both models.
        memories: What each has written before.
        clock: Takes the costs.
    """

    def __init__(self, pair: Pair, clock: Clock, memories: Memories | None = None) -> None:
        self.pair, self.clock = pair, clock
        self.memories = memories or {who: Memory(None) for who in (BASE, TUNED)}

    def write(
        self,
        texts: Sequence[str],
        decoding: Decoding,
        label: str,
        complete: Callable[[int, str], bool] | None = None,
        rule: str = "",
    ) -> tuple[list[tuple[Attempt, ...]], list[tuple[Attempt, ...]]]:
        """What base and tuned model write after each text, `decoding.attempts` times.

        Args:
            texts: Prompts.
            decoding: How.
            label: Of progress and cost.
            complete: Asked with (index of the text, answer so far): is this enough?
            rule: Name of what `complete` does, for the memory.
        """
        prompts = generation.encode(self.pair.tokenizer, texts)
        base, tuned = (
            self._answers(who, prompts, decoding, f"{label}, {who}", complete, rule)
            for who in (BASE, TUNED)
        )
        return base, tuned

    def _answers(
        self,
        who: str,
        prompts: Sequence[list[int]],
        decoding: Decoding,
        title: str,
        complete: Callable[[int, str], bool] | None,
        rule: str,
    ) -> list[tuple[Attempt, ...]]:
        memory, each = self.memories[who], decoding.attempts
        how = {**asdict(decoding), "attempts": 0, "rule": rule}  # how many there are changes none
        made_by = [memory.model, maker(GENERATION, LIBRARIES)]
        wanted = [(i, n) for i in range(len(prompts)) for n in range(each)]
        keys = [key_of(by=made_by, prompt=prompts[i], how=how, attempt=n) for i, n in wanted]
        found = {key: from_plain(raw) for key, raw in memory.get(keys).items()}
        new = [at for at, key in enumerate(keys) if key not in found]
        before, tokens = len(wanted) - len(new), 0
        report(title, before, len(wanted))

        def done(index: int, written: Generated) -> None:
            nonlocal tokens
            tokens += written.tokens
            found[keys[new[index]]] = written
            memory.put({keys[new[index]]: to_plain(written)})
            report(title, len(found), len(set(keys)), f"{tokens:,} tokens")

        again = f" ({before:,} of {len(wanted):,} remembered)" if before else ""
        with self.clock.measure(f"generation, {title}{again}") as part:
            self.pair.generate(
                who,
                [prompts[wanted[at][0]] for at in new],
                max_new_tokens=decoding.max_new_tokens,
                batch=decoding.batch,
                stops=decoding.stops,
                sampling=decoding.sampling,
                names=[f"{key_of(prompt=prompts[wanted[at][0]])} {wanted[at][1]}" for at in new],
                complete=complete and (lambda index, text: complete(wanted[new[index]][0], text)),
                done=done,
            )
            part.tokens = tokens
        attempts = [self._attempt(found[key], decoding.marker) for key in keys]
        return [tuple(attempts[i * each : (i + 1) * each]) for i in range(len(prompts))]

    def _attempt(self, written: Generated, marker: str) -> Attempt:
        """The marker may have come in other tokens than expected; it ends the answer all the
        same."""
        text = self.pair.text(written.ids)
        kept = until(marker, text)
        return Attempt(kept, written.tokens, stopped=written.stopped or len(kept) < len(text))


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
    writers: Writers, prompts: Sequence[Prompt], template: str, decoding: Decoding
) -> tuple[Sample, ...]:
    """Both models' answers to held-out prompts, beside what the data says."""
    if not prompts:
        return ()
    base, tuned = writers.write([p.prompt for p in prompts], decoding, "samples")
    end = templates.complete(template, "")
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
        return humaneval.is_complete(posed[index], text)

    label = f"{posed[0].suite} {style}"
    raw = style == "completion"
    base, tuned = writers.write(
        texts, decoding, label, complete if raw else None, "a closed function" if raw else ""
    )
    return [
        ProblemResult(p.suite, p.problem_id, style, text, b, t)
        for p, text, b, t in zip(posed, texts, base, tuned, strict=True)
    ]


def fill_in(writers: Writers, holes: Sequence[Hole], decoding: Decoding) -> list[ProblemResult]:
    """Both models' lines for holes, judged by exact match.

    Raises:
        PipelineError: The tokenizer has no tokens for it.
    """
    if not holes:
        return []
    one_line = Decoding(
        min(decoding.max_new_tokens, _INFILLING_TOKENS),
        decoding.batch,
        generation.stop_sequences(writers.pair.tokenizer, ""),
    )
    base, tuned = writers.write(
        [hole.prompt for hole in holes],
        one_line,
        infilling.SUITE,
        lambda index, text: infilling.is_complete(text),
        "a line",
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
    texts = [templates.render(template, line.prompt, line.input) for line in lines]
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


def until(marker: str, text: str) -> str:
    """Text before the end marker; all of it where there is none."""
    return text.split(marker, 1)[0] if marker else text
