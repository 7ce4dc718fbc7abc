"""Guesses about records whose columns have less usual names, and whose values say what they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.ingestion.formats.column_errors import is_about
from tasks.ingestion.formats.columns import Values, column
from tasks.ingestion.formats.rendered_chat import rendered_messages
from tasks.ingestion.formats.rows.messages import speaker_of
from tasks.ingestion.formats.rows.protocol import ColumnMapping

# answers under less usual names: the questions that they may belong to
CODE = ("code", "function", "snippet", "func_code_string", "solution_code", "canonical_solution")
REPLIES = ("solution", "response", "output", "answer", "a", "reply", "completion", "output_text")
ANSWERS = {
    **dict.fromkeys(("inputs", "input", "source"), ("targets", "target")),
    **dict.fromkeys(("human", "user"), ("assistant", "gpt", "bot", "ai")),
    **dict.fromkeys(("text", "docstring", "description", "nl", "intent", "problem"), CODE),
    **dict.fromkeys(("problem_description", "func_documentation_string", "prompt"), CODE),
    **dict.fromkeys(("task", "request", "q", "ask", "input_text"), (*CODE, *REPLIES)),
    **dict.fromkeys(
        ("question", "query", "instruction"), (*CODE, "answers", "completion", "target", "reply")
    ),
}
PAIRS = [(question, answer) for question in ANSWERS for answer in ANSWERS[question]]
COMMIT = {"input": "old_contents", "output": "new_contents"}  # the question is its message
TEXTS = frozenset({"body", "contents", "document", "markdown", "raw_content"})  # if they are alone
# columns with two answers to compare
COMPARED_ENDS = (("a", "b"), ("A", "B"), ("1", "2"), ("0", "1"), ("j", "k"))
COMPARED = frozenset(
    {"answer", "completion", "conversation", "human_ref", "output", "response", "summary", "text"}
)


def compared_columns(records: Sequence[Values]) -> tuple[str, str] | None:
    """Two columns with answers that a third one compares: response_a and response_b."""
    names = dict.fromkeys(name for values in records for name in values)
    for first in names:
        for ends in COMPARED_ENDS:
            stem, other = first.removesuffix(ends[0]), first.removesuffix(ends[0]) + ends[1]
            if stem != first and other in names and stem.lower().rstrip("_") in COMPARED:
                return first, other
    return None


def guesses(
    mapping: ColumnMapping, records: Sequence[Values], found: str
) -> Iterator[ColumnMapping]:
    """Mappings of columns with less usual names whose values say what they are: the only column
    with a chat; an input without an instruction, which is the question; a question and its answer.

    Args:
        mapping: Of the source; if it names columns or a format, nothing is guessed.
        records: Some records.
        found: The format that they fit by usual names; "" none.
    """
    if mapping.columns or mapping.format or found not in ("", "text", "prompt_completion"):
        return
    names = list(dict.fromkeys(name for values in records for name in values))
    if found == "prompt_completion":
        if "input" in names and all(isinstance(v.get("prompt"), str) for v in records):
            yield replace(mapping, columns={"instruction": "prompt"})
        return
    about = next((name for name in ("message", "subject") if name in names), "")
    if about and all(name in names for name in COMMIT.values()):
        yield replace(mapping, columns={"instruction": about, **COMMIT})
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    for question, answer in PAIRS:
        if question in by_lower and answer in by_lower:
            columns = {"instruction": by_lower[question], "output": by_lower[answer]}
            yield replace(mapping, columns=columns)
    if found:
        return
    is_list = all(isinstance(values.get("data"), list) for values in records)
    for path in [*_chats(names, records), *(["data"] if is_list else [])]:
        yield replace(mapping, columns={"messages": path})
    if "input" in names and "instruction" not in names:
        yield replace(mapping, columns={"instruction": "input"})
    if "code" in names:
        yield replace(mapping, columns={"text": "code"})
    texts = [n for n in names if isinstance(records[0].get(n), str) and not is_about(n)]
    if len(texts) == 1 and texts[0].lower() in TEXTS:
        yield replace(mapping, columns={"text": texts[0]})


def _chats(names: Sequence[str], records: Sequence[Values]) -> list[str]:
    """The only column with a chat, or the only field of an object with one; [] for several."""

    def is_chat(value: Any) -> bool:
        return bool(speaker_of(value) or rendered_messages(value))

    inner = [
        f"{name}.{key}"
        for name in names
        if isinstance(fields := records[0].get(name), Mapping)
        for key in fields
    ]
    for paths in (names, inner):
        found = {p: [column(p).get(values) for values in records] for p in paths}
        chats = [path for path, values in found.items() if all(map(is_chat, values))]
        lists = [p for p in chats if not any(isinstance(one, Mapping) for one in found[p])]
        if len(lists or chats) == 1:
            return lists or chats
    return []
