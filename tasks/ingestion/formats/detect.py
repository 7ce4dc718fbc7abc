"""The row format of a file: the one that most of its first records fit, or the one of the settings,
with the columns that its roles have in this file."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.core.errors import PipelineError
from tasks.ingestion.formats.column_errors import in_yaml
from tasks.ingestion.formats.columns import Column, Values, column
from tasks.ingestion.formats.rendered_chat import markup_of, rendered_messages
from tasks.ingestion.formats.rows.messages import speaker_of
from tasks.ingestion.formats.rows.protocol import (
    BoundFormat,
    ColumnMapping,
    RowFormat,
)
from tasks.ingestion.formats.rows.registry import ROW_FORMATS

LABELS = ("project", "licence")  # roles of every format
# question and answer under less usual names, and with code as the answer
PAIRS = (
    ("inputs", "targets"), ("input", "target"), ("source", "target"), ("human", "assistant"),
    ("human", "gpt"), ("human", "bot"), ("user", "assistant"), ("question", "code"),
    ("prompt", "code"), ("text", "code"), ("docstring", "code"), ("instruction", "code"),
    ("query", "answers"), ("question", "answers"), ("instruction", "completion"),
    ("question", "completion"), ("instruction", "target"),
)  # fmt: skip
COMMIT = {"input": "old_contents", "output": "new_contents"}  # the question is its message
# formats of plain texts, and their columns in the order in which a chat is written into them
PLAIN = {
    "text": ("text",),
    "instruction": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
}
ALWAYS_READ = ("input",)  # may be absent from the first records and still come later


def bind(mapping: ColumnMapping, records: Sequence[Values], path: str) -> BoundFormat:
    """The format of a file and its columns.

    Args:
        mapping: Of the source.
        records: The first records of the file.
        path: The file, for errors.

    Raises:
        PipelineError: The settings name columns that no format has together, a role could be that
            of several columns, or the file has preference pairs and the settings do not say what to
            take.
    """
    forms = _possible_formats(mapping)
    choices = [_resolved(form, mapping, records) for form in forms]
    fitting = [sum(bound.form.fits(bound, values) for values in records) for bound in choices]
    most = max(fitting)
    bound = choices[fitting.index(most)]
    for guess in _guesses(mapping, records, bound.form.name if most else ""):
        guessed = bind(guess, records, path)
        if any(guessed.form.fits(guessed, values) for values in records):
            return guessed
    is_guess_free = not mapping.columns and not mapping.format
    if is_guess_free and bound.form.name == "text" and all("role" in values for values in records):
        raise PipelineError(
            f"source {mapping.source} ({path}): each of its rows is one message, with a role",
            "Write the messages of a conversation into one row, "
            '{"messages": [{"role": ..., "content": ...}, ...]}, or set `format: text` in the '
            "source's settings to train on each message as plain text.",
        )
    if not most:
        return next((b for b in choices if b.form.name == "instruction"), choices[0])
    for role, names in bound.ambiguous.items():
        raise _ambiguous(mapping.source, path, role, names)
    if bound.form.choice and mapping.take is None:
        raise PipelineError(
            f"source {mapping.source} ({path}): its rows are {bound.form.choice}, and "
            "training uses good answers only",
            "To train on the chosen answers, set `take: chosen` in the source's settings.",
        )
    return bound


def _guesses(
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
    for question, answer in PAIRS:
        if question in names and answer in names:
            yield replace(mapping, columns={"instruction": question, "output": answer})
    if found:
        return
    is_list = all(isinstance(values.get("data"), list) for values in records)
    for path in [*_chats(names, records), *(["data"] if is_list else [])]:
        yield replace(mapping, columns={"messages": path})
    if "input" in names and "instruction" not in names:
        yield replace(mapping, columns={"instruction": "input"})
    if "code" in names:
        yield replace(mapping, columns={"text": "code"})


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


def other_format(mapping: ColumnMapping, records: Sequence[Values]) -> str:
    """The format that fits records better than that of the settings; "" if there is none."""
    for form in ROW_FORMATS.values():
        free = ColumnMapping(mapping.source, {}, mapping.required, "")
        bound = _resolved(form, free, records)
        if form.name != mapping.format and any(form.fits(bound, values) for values in records):
            return form.name
    return ""


def rendered_chat(bound: BoundFormat, records: Sequence[Values]) -> str:
    """What to do about a file of plain texts most of which look like rendered chats: their markup
    and the setting that reads them as conversations; "" for other files and where the settings name
    the format."""
    roles = PLAIN.get(bound.form.name)
    if not roles or bound.mapping.format:
        return ""
    texts = ["".join(str(bound.value(role, values)) for role in roles) for values in records]
    markups = Counter(filter(None, map(markup_of, texts)))
    if markups.total() * 2 <= len(records):
        return ""
    specs = [bound.columns[role].spec for role in roles]
    spec = specs[0] if len(specs) == 1 else "".join(f"{{{one}}}" for one in specs)
    columns = {"messages": spec} | {
        role: one for role, one in bound.mapping.columns.items() if role in LABELS
    }
    shown = ", ".join(f"{role}: {in_yaml(one)}" for role, one in columns.items())
    return (
        f"{markups.most_common(1)[0][0]} markup: `columns: {{{shown}}}` reads them as "
        f"conversations, `format: {bound.form.name}` as they are"
    )


def _possible_formats(mapping: ColumnMapping) -> list[RowFormat]:
    """The formats that have all roles which the settings name.

    Raises:
        PipelineError: There is none.
    """
    named = [role for role in mapping.columns if role not in LABELS]
    forms = [form for form in ROW_FORMATS.values() if mapping.format in (None, form.name)]
    possible = [form for form in forms if form.roles.keys() >= set(named)]
    if possible:
        return possible
    if mapping.format:
        wrong = [role for role in named if role not in forms[0].roles]
        raise PipelineError(
            f"source {mapping.source}: `columns` names {', '.join(wrong)}, which format "
            f"{mapping.format} does not have; it has {', '.join(forms[0].roles)}",
            f"Remove {', '.join(wrong)} from `columns`, or remove `format`.",
        )
    raise PipelineError(
        f"source {mapping.source}: `columns` names {', '.join(named)}, which no format has "
        "together",
        "Keep the columns of one format: "
        + "; ".join(f"{form.name} ({', '.join(form.roles)})" for form in forms)
        + ".",
    )


def _resolved(form: RowFormat, mapping: ColumnMapping, records: Sequence[Values]) -> BoundFormat:
    """A format with the columns that its roles have in some records."""
    columns = {role: column(spec) for role, spec in mapping.columns.items()}
    taken = {name for one in columns.values() for name in one.names}
    ambiguous: dict[str, tuple[str, ...]] = {}
    for role, usual in form.roles.items():
        if role in columns:
            continue
        found = [name for name in _present(usual, records) if name not in taken]
        if len(found) > 1 and found[0].lower() != usual[0]:
            ambiguous[role] = tuple(found)
        if found:
            columns[role] = column(found[0])
            taken.add(found[0])
        elif role in form.needs(mapping) or role in ALWAYS_READ:
            columns[role] = column(usual[0])
    return BoundFormat(form, mapping, columns, ambiguous)


def _present(usual: Sequence[str], records: Iterable[Values]) -> Iterator[str]:
    """The columns of records with one of some names, in the order of these; of less usual names,
    only those that hold anything."""
    records = list(records)
    names = dict.fromkeys(name for values in records for name in values)
    for wanted in usual:
        for name in names:
            is_usual = wanted == usual[0]
            if name.strip().lower() == wanted and (is_usual or any(v.get(name) for v in records)):
                yield name


def _ambiguous(source: str, path: str, role: str, names: Sequence[str]) -> PipelineError:
    choices = " or ".join(f"`columns: {{{role}: {in_yaml(name)}}}`" for name in names)
    return PipelineError(
        f"source {source} ({path}): the {role} could be column {' or '.join(map(repr, names))}",
        f"Name one of them in the source's settings: {choices}.",
    )


def used_names(columns: Mapping[str, Column]) -> set[str]:
    """Columns of a file that are read."""
    return {name for one in columns.values() for name in one.names}
