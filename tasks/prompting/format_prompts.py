"""Rows -> prompt and completion, one for one, by the template; some functions become infilling.
Whole files and rows of infilling have no template."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.progress import report
from tasks.core.rows import row_schema
from tasks.core.rows.hash_rank import RANKS, hash_rank
from tasks.core.rows.parquet import TableWriter, read_batches
from tasks.core.text.prompt_templates import complete, fill_in, fill_prompt, render
from tasks.prompting.fill_in_middle import hole
from tasks.prompting.split import SPLITS

BATCH_ROWS = 1024
COLUMNS = ["row_id", "instruction", "input", "output", "kind", "conversation", "repeats"]
TRAIN = SPLITS.index("train")


@dataclass
class PromptFormatter:
    """The settings of the texts, and a count.

    Attributes:
        infilled: Rows that became infilling so far.
        repeated: Repetitions of rows so far.
    """

    template: str
    fim_rate: float
    seed: int
    spm_share: float = 0.0
    infilled: int = 0
    repeated: int = 0

    def write(self, kept: Path, splits: NDArray[np.int8], units: pa.Array, out: Path) -> None:
        """Format every row into the file of its split, in the order of `kept`; `units` are the
        units of the split, which the evaluation resamples."""
        done = 0
        with ExitStack() as stack:
            writers = [
                stack.enter_context(TableWriter(out / f"{name}.parquet", row_schema.PROMPTS))
                for name in SPLITS
            ]
            for batch in read_batches(kept, BATCH_ROWS, COLUMNS):
                own = splits[done : done + len(batch)]
                prompts = self.format(batch, units.slice(done, len(batch)), own == TRAIN)
                for number, writer in enumerate(writers):
                    part = prompts.filter(pa.array(own == number))
                    if number == TRAIN:
                        part = self._repeated(part, batch.filter(pa.array(own == number)))
                    writer.add_table(part)
                done += len(batch)
                report("prompts", done, len(splits))
            for writer in writers:
                writer.finish()

    def format(self, batch: pa.Table, units: pa.Array, train: NDArray[np.bool_]) -> pa.Table:
        """Rows (`COLUMNS`) -> prompts (`row_schema.PROMPTS`).

        Only functions in the training split become infilling: validation and test measure what the
        user asks for.
        """
        columns = (batch.column(name).to_pylist() for name in COLUMNS)
        row_ids, *texts, kinds, conversations, _ = columns
        instructions, inputs, outputs = texts
        prompts = [
            render(self.template, instruction, given or "")
            for instruction, given in zip(instructions, inputs, strict=True)
        ]
        completions = [complete(self.template, output) for output in outputs]
        for i, kind in enumerate(kinds):
            if kind == "file":  # text to continue, without a template
                prompts[i], completions[i] = instructions[i], outputs[i]
            elif kind == "fill":
                fill = json.loads(conversations[i])["fill"]
                draw = int.from_bytes(hash_rank(self.seed, "spm", row_ids[i]), "big")
                suffix_first = bool(train[i]) and draw < self.spm_share * RANKS
                prompts[i] = fill_prompt(fill["prefix"], fill["suffix"], suffix_first)
                completions[i] = fill["middle"]
                self.infilled += 1
        for i in self._candidates(kinds, train):
            if place := hole(outputs[i], row_ids[i], self.fim_rate, self.seed):
                prompts[i], completions[i] = fill_in(outputs[i], *place)
                self.infilled += 1
        return pa.table(
            [pa.array(row_ids, pa.string()), units, prompts, completions], schema=row_schema.PROMPTS
        )

    def _repeated(self, prompts: pa.Table, rows: pa.Table) -> pa.Table:
        """Training rows as often as their source's weight asks for; repetitions get ids of their
        own, so that they are shuffled apart."""
        repeats = rows.column("repeats").to_numpy()
        if not (repeats > 1).any():
            return prompts
        self.repeated += int((repeats - 1).sum())
        places = np.repeat(np.arange(len(repeats)), repeats)
        first = np.repeat(np.cumsum(repeats) - repeats, repeats)
        numbers = np.arange(len(places)) - first
        table = prompts.take(pa.array(places))
        named = zip(table.column("row_id").to_pylist(), numbers.tolist(), strict=True)
        ids = [f"{row_id}r{number}" if number else row_id for row_id, number in named]
        return table.set_column(0, row_schema.PROMPTS.field("row_id"), pa.array(ids, pa.string()))

    def _candidates(self, kinds: list[str], train: NDArray[np.bool_]) -> Iterator[int]:
        """Rows that may become infilling."""
        if self.fim_rate:
            yield from (i for i in np.flatnonzero(train).tolist() if kinds[i] == "function")
