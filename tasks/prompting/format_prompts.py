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
COLUMNS = ["row_id", "project", "instruction", "input", "output", "kind", "conversation"]
TRAIN = SPLITS.index("train")


@dataclass
class PromptFormatter:
    """The settings of the texts, and a count.

    Attributes:
        infilled: Rows that became infilling so far.
    """

    template: str
    fim_rate: float
    seed: int
    spm_share: float = 0.0
    infilled: int = 0

    def write(self, kept: Path, splits: NDArray[np.int8], out: Path) -> None:
        """Format every row into the file of its split, in the order of `kept`."""
        done = 0
        with ExitStack() as stack:
            writers = [
                stack.enter_context(TableWriter(out / f"{name}.parquet", row_schema.PROMPTS))
                for name in SPLITS
            ]
            for batch in read_batches(kept, BATCH_ROWS, COLUMNS):
                own = splits[done : done + len(batch)]
                prompts = self.format(batch, own == TRAIN)
                for number, writer in enumerate(writers):
                    writer.add_table(prompts.filter(pa.array(own == number)))
                done += len(batch)
                report("prompts", done, len(splits))
            for writer in writers:
                writer.finish()

    def format(self, batch: pa.Table, train: NDArray[np.bool_]) -> pa.Table:
        """Rows (`COLUMNS`) -> prompts (`row_schema.PROMPTS`).

        Only functions in the training split become infilling: validation and test measure what the
        user asks for.
        """
        columns = (batch.column(name).to_pylist() for name in COLUMNS)
        row_ids, projects, *texts, kinds, conversations = columns
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
        return pa.table([row_ids, projects, prompts, completions], schema=row_schema.PROMPTS)

    def _candidates(self, kinds: list[str], train: NDArray[np.bool_]) -> Iterator[int]:
        """Rows that may become infilling."""
        if self.fim_rate:
            yield from (i for i in np.flatnonzero(train).tolist() if kinds[i] == "function")
