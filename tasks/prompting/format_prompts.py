"""Rows -> prompt and completion, one for one, by the template; some functions become infilling.

A conversation is passed on: as messages where a chat template writes it, which needs the base's
tokenizer, else as segments of text. Its prompt and completion are then those of its last answer.
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
from tasks.core.rows.parquet import TableWriter, read_batches
from tasks.core.text import conversation as conversations
from tasks.core.text.prompt_templates import (
    PromptTemplate,
    as_segments,
    chat_prompt,
    complete,
    fill_in,
    infilling,
    render,
    request,
)
from tasks.prompting.fill_in_middle import hole
from tasks.prompting.split import SPLITS

BATCH_ROWS = 1024
COLUMNS = ["row_id", "project", "instruction", "input", "output", "kind", "conversation"]
TRAIN = SPLITS.index("train")
TEXT = "text"  # kind of rows that may be split into several samples
Prompt = tuple[str, str, str, str]  # prompt, completion, conversation, kind


@dataclass
class PromptFormatter:
    """The settings of the texts, and a count.

    Attributes:
        infilled: Rows that became infilling so far.
    """

    template: PromptTemplate
    fim_rate: float
    seed: int
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
        row_ids, projects, *texts, kinds, chats = (
            batch.column(name).to_pylist() for name in COLUMNS
        )
        rows = [
            self._conversation(json.loads(chat)) if chat else self._row(kind, *row)
            for kind, chat, *row in zip(kinds, chats, *texts, strict=True)
        ]
        outputs = texts[-1]
        for i in self._candidates(kinds, train):
            if place := hole(outputs[i], row_ids[i], self.fim_rate, self.seed):
                rows[i] = (*fill_in(outputs[i], *place), "", "")
                self.infilled += 1
        columns = zip(*rows, strict=True) if rows else [[]] * 4
        return pa.table([row_ids, projects, *map(list, columns)], schema=row_schema.PROMPTS)

    def _row(self, kind: str, instruction: str, given: str, output: str) -> Prompt:
        """A row of instruction, input and output."""
        template = self.template
        if kind == TEXT:
            return "", output, "", TEXT
        prompt, completion = render(template, instruction, given or ""), complete(template, output)
        if not template.is_chat:
            return prompt, completion, "", TEXT if template.text == "completion" else ""
        answer = {"role": "assistant", "content": output}
        messages = [*request(template, instruction, given or ""), answer]
        return prompt, completion, self._passed({"messages": messages}), ""

    def _conversation(self, chat: dict[str, Any]) -> Prompt:
        """A row with a conversation."""
        template = self.template
        if "fill" in chat:
            fill = chat["fill"]
            return *infilling(fill["prefix"], fill["middle"], fill["suffix"]), "", ""
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
