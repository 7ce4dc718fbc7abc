"""The row format of a file: the one that most of its first records fit, or the one of the settings,
with the columns that its roles have in this file."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tasks.core.errors import PipelineError
from tasks.ingestion.formats.column_errors import in_yaml
from tasks.ingestion.formats.columns import Column, Values, column
from tasks.ingestion.formats.guesses import compared_columns, guesses
from tasks.ingestion.formats.rendered_chat import markup_of
from tasks.ingestion.formats.rows.protocol import (
    BoundFormat,
    ColumnMapping,
    RowFormat,
)
from tasks.ingestion.formats.rows.registry import ROW_FORMATS

LABELS = ("project", "licence")  # roles of every format
# formats of plain texts, and their columns in the order in which a chat is written into them
PLAIN = {
    "text": ("text",),
    "instruction": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
}
UNRATED = {"rated": " If the label says something else, set `format: prompt_completion`."}
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
    for guess in guesses(mapping, records, bound.form.name if most else ""):
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
        if is_guess_free and (compared := compared_columns(records)):
            raise PipelineError(
                f"source {mapping.source} ({path}): its rows compare two answers, columns "
                f"{' and '.join(map(repr, compared))}, and training uses good answers only",
                "Write the better one of each row to a column `chosen` and the other one to a "
                "column `rejected`, and set `take: chosen` in the source's settings.",
            )
        return next((b for b in choices if b.form.name == "instruction"), choices[0])
    for role, names in bound.ambiguous.items():
        raise _ambiguous(mapping.source, path, role, names)
    if bound.form.choice and mapping.take is None:
        raise PipelineError(
            f"source {mapping.source} ({path}): its rows are {bound.form.choice}, and "
            "training uses good answers only",
            "To train on the chosen answers, set `take: chosen` in the source's settings."
            + UNRATED.get(bound.form.name, ""),
        )
    return bound


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


def _present(usual: Sequence[str], records: Iterable[Values]) -> list[str]:
    """The columns of records with one of some names, in the order of these; of less usual names,
    those that hold anything, or else the first one."""
    records = list(records)
    names = dict.fromkeys(name for values in records for name in values)
    found = [name for wanted in usual for name in names if name.strip().lower() == wanted]
    held = [
        name
        for name in found
        if name.strip().lower() == usual[0] or any(values.get(name) for values in records)
    ]
    return held or found[:1]


def _ambiguous(source: str, path: str, role: str, names: Sequence[str]) -> PipelineError:
    choices = " or ".join(f"`columns: {{{role}: {in_yaml(name)}}}`" for name in names)
    return PipelineError(
        f"source {source} ({path}): the {role} could be column {' or '.join(map(repr, names))}",
        f"Name one of them in the source's settings: {choices}.",
    )


def used_names(columns: Mapping[str, Column]) -> set[str]:
    """Columns of a file that are read."""
    return {name for one in columns.values() for name in one.names}
