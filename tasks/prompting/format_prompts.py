"""Rows -> prompt and completion, one for one, by the template; some functions become infilling.

A conversation is passed on: as messages where a chat template writes it, which needs the base's
tokenizer, else as segments of text. Its prompt and completion are then those of its last answer.
Whole files and rows of infilling have no template.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.progress import report
from tasks.core.rows import row_schema
from tasks.core.rows.hash_rank import RANKS, hash_rank
from tasks.core.rows.parquet import TableWriter, read_batches
from tasks.core.system.parallel import without_gc
from tasks.core.text import conversation as conversations
from tasks.core.text.prompt_templates import (
    PromptTemplate,
    as_segments,
    chat_prompt,
    complete,
    fill_in,
    fill_prompt,
    render,
    request,
)
from tasks.core.text.repository_format import repository_prompt
from tasks.prompting.fill_in_middle import hole
from tasks.prompting.split import SPLITS
from tasks.prompting.units import UnitNames

COLUMNS = ["row_id", "instruction", "input", "output", "kind", "conversation", "repeats"]
TRAIN = SPLITS.index("train")
TEXT = "text"  # kind of rows that may be split into several samples
Prompt = tuple[str, str, str, str]  # prompt, completion, conversation, kind


@dataclass
class PromptFormatter:
    """The settings of the texts, and a count.

    Attributes:
        infilled: Rows that became infilling so far.
        repeated: Repetitions of rows so far.
    """

    template: PromptTemplate
    fim_rate: float
    seed: int
    spm_share: float = 0.0
    infilled: int = 0
    repeated: int = 0

    def write(self, kept: Path, splits: NDArray[np.int8], units: UnitNames, out: Path) -> None:
        """Format every row into the file of its split, in the order of `kept`; `units` are the
        units of the split, which the evaluation resamples."""
        done = 0
        with ExitStack() as stack:
            writers = [
                stack.enter_context(TableWriter(out / f"{name}.parquet", row_schema.PROMPTS))
                for name in SPLITS
            ]
            for batch in read_batches(kept, columns=COLUMNS):
                own = splits[done : done + len(batch)]
                with without_gc():
                    prompts = self.format(batch, units.of(done, len(batch)), own == TRAIN)
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
        user's prompts look like.
        """
        row_ids, *texts, kinds, chats, _ = (batch.column(name).to_pylist() for name in COLUMNS)
        rows = [
            self._conversation(json.loads(chat), row_id, bool(is_train))
            if chat
            else self._row(kind, *row)
            for row_id, kind, chat, is_train, *row in zip(
                row_ids, kinds, chats, train, *texts, strict=True
            )
        ]
        outputs = texts[-1]
        for i in self._candidates(kinds, train):
            if place := hole(outputs[i], row_ids[i], self.fim_rate, self.seed):
                rows[i] = (*fill_in(outputs[i], *place), "", "")
                self.infilled += 1
        columns = zip(*rows, strict=True) if rows else [[]] * 4
        ids = pa.array(row_ids, pa.string())
        return pa.table([ids, units, *map(list, columns)], schema=row_schema.PROMPTS)

    def _repeated(self, prompts: pa.Table, rows: pa.Table) -> pa.Table:
        """Training rows repeated by the weight of their source; repetitions get ids of their
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

    def _row(self, kind: str, instruction: str, given: str, output: str) -> Prompt:
        """A row of instruction, input and output."""
        template = self.template
        if kind == TEXT:
            return "", output, "", TEXT
        if kind == "file":  # text to continue, without a template
            return instruction, output, "", ""
        prompt, completion = render(template, instruction, given or ""), complete(template, output)
        if not template.is_chat:
            return prompt, completion, "", TEXT if template.text == "completion" else ""
        answer = {"role": "assistant", "content": output}
        messages = [*request(template, instruction, given or ""), answer]
        return prompt, completion, self._passed({"messages": messages}), ""

    def _conversation(self, chat: dict[str, Any], row_id: str, is_train: bool) -> Prompt:
        """A row with a conversation."""
        template = self.template
        if "fill" in chat:
            fill = chat["fill"]
            draw = int.from_bytes(hash_rank(self.seed, "spm", row_id), "big")
            suffix_first = is_train and draw < self.spm_share * RANKS
            self.infilled += 1
            prompt = fill_prompt(fill["prefix"], fill["suffix"], suffix_first)
            return prompt, fill["middle"], "", ""
        if "context" in chat:
            return repository_prompt(chat["context"]), chat["context"]["output"], "", ""
        if "messages" not in chat or not template.is_chat:
            parts = chat["segments"] if "segments" in chat else as_segments(template, chat)
            return *_last_trained(parts), _json({"segments": parts}), ""
        chat = {**chat, "messages": conversations.with_system(chat["messages"], template.system)}
        answers = conversations.trained_messages(chat["messages"], conversations.LAST)
        last = answers[0] if answers else len(chat["messages"])
        prompt = chat_prompt(template, {**chat, "messages": chat["messages"][:last]})
        answer = conversations.text_of(chat["messages"][last]) if answers else ""
        return prompt, complete(template, answer), self._passed(chat), ""

    def _passed(self, chat: dict[str, Any]) -> str:
        return _json(self.template.chat(chat))

    def _candidates(self, kinds: list[str], train: NDArray[np.bool_]) -> Iterator[int]:
        """Rows that may become infilling."""
        if self.fim_rate:
            yield from (i for i in np.flatnonzero(train).tolist() if kinds[i] == "function")


def _last_trained(segments: list[dict[str, Any]]) -> tuple[str, str]:
    """The text before the last trained segment, and that segment."""
    trained = conversations.trained_segments(segments, "output")
    last = trained[-1] if trained else len(segments)
    return "".join(part["text"] for part in segments[:last]), "".join(
        part["text"] for part in segments[last : last + 1]
    )


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
