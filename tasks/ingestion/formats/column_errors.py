"""The error of a source whose records lack a column, with a remedy that can be followed: it names
only columns that have no role yet."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.core.errors import PipelineError
from tasks.ingestion.formats.columns import Values, paths_of

SHOWN_COLUMNS = 20
LONGEST_NAME = 60  # characters; a longer name of a column, or one with a line break, is a value
PLAIN_YAML = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*(?<![.-])")
YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
# parts of the names that columns of a role often have
WORDS = {
    "instruction": ("instruction", "question", "query", "prompt", "task", "problem", "title"),
    "prompt": ("prompt", "question", "query", "task", "problem", "instruction"),
    "output": ("output", "answer", "response", "solution", "completion", "target", "reply", "code"),
    "completion": ("completion", "answer", "response", "output", "solution", "target"),
    "text": ("text", "content", "body", "code"),
    "messages": ("message", "conversation", "dialog", "turns", "chat"),
}
# columns about a row, which are hardly its texts
ABOUT = frozenset(
    {"author", "category", "commit", "date", "hash", "id", "lang", "language", "licence", "license",
     "method", "model", "path", "repo", "repo_name", "repos", "role", "source", "split", "type",
     "uid", "url", "uuid"}
)  # fmt: skip
FROM_THE_END = frozenset({"output", "completion", "chosen"})


def in_yaml(name: str) -> str:
    """A name as a value in YAML, in quotes where it needs them."""
    is_plain = PLAIN_YAML.fullmatch(name) and name.lower() not in YAML_WORDS
    return name if is_plain else json.dumps(name, ensure_ascii=False)


def listed(names: Sequence[str], most: int = SHOWN_COLUMNS) -> str:
    """Names, the first `most` of them."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def known_paths(records: Iterable[Values]) -> dict[str, Any]:
    """Columns and nested fields of records, each with its first value that is not empty."""
    found: dict[str, Any] = {}
    for values in records:
        for path, value in paths_of(values):
            found[path] = found.get(path) or value
    return found


def no_column(
    where: str,
    rows: int,
    absent: Sequence[tuple[str, str]],
    named: Mapping[str, str],
    used: Iterable[str],
    records: Sequence[Values],
    instead: str,
) -> PipelineError:
    """The error of columns that no record has.

    Args:
        where: The source and its first file.
        rows: Its number of records.
        absent: (role, column) of those.
        named: Columns that the settings name.
        used: Columns that have a role.
        records: Some of the records.
        instead: A row format that fits them, "" if there is none.
    """
    paths = known_paths(records)
    names = ", ".join(repr(spec) for _, spec in absent)
    problem = (
        f"{where}: none of its {rows:,} rows has column {names}; its columns are {listed([*paths])}"
    )
    if instead:
        holds = "a chat format" if instead in ("messages", "sharegpt") else f"format {instead}"
        remove = " and remove `columns`" if named else ""
        return PipelineError(
            f"{problem}: {holds}", f"Set `format: {instead}` in the source's settings{remove}."
        )
    if chat := _unknown_chat(records):
        name, fields = chat
        return PipelineError(
            f"{problem}. Column {name!r} holds a chat format that is not known: its messages have "
            f"the fields {listed(fields)}",
            "Write each message as {role, content} or {from, value}, with the roles system, user, "
            "assistant and tool.",
        )
    if any(len(name) > LONGEST_NAME or "\n" in name for name in paths):
        roles = " and ".join(f"`{spec}`" for _, spec in absent)
        return PipelineError(
            f"{where}: its first line holds values, not the names of its {len(paths)} columns",
            f"Add a first line with the names of all columns to the file, {roles} among them.",
        )
    return PipelineError(problem, _remedy(absent, named, set(used), paths))


def _remedy(
    absent: Sequence[tuple[str, str]],
    named: Mapping[str, str],
    used: set[str],
    paths: Mapping[str, Any],
) -> str:
    """A mapping to columns without a role, as far as there are any."""
    free = [p for p, value in paths.items() if isinstance(value, str) and not _is_used(p, used)]
    picked: dict[str, str] = {}
    missing = []
    for role, spec in absent:
        left = [path for path in free if path not in picked.values()]
        if choice := _pick(role, spec, left):
            picked[role] = choice
        else:
            missing.append((role, spec))
    sentences = [_without(role, spec, named) for role, spec in missing]
    if picked:
        others = {role: spec for role, spec in named.items() if (role, spec) not in absent}
        mapping = ", ".join(f"{role}: {in_yaml(spec)}" for role, spec in (others | picked).items())
        sentences.append(f"Name the columns in the source's settings: `columns: {{{mapping}}}`.")
    return " ".join(sentences)


def _without(role: str, spec: str, named: Mapping[str, str]) -> str:
    """The remedy for a role that no column without a role is left for."""
    if role in named and role not in WORDS:
        return f"Remove `{role}` from `columns` of the source."
    return f"Add a column {spec!r} to the file, or point `path` to a file that has it."


def _is_used(path: str, used: set[str]) -> bool:
    return path in used or path.split(".", maxsplit=1)[0] in used


def _pick(role: str, spec: str, free: Sequence[str]) -> str:
    """The column that most likely has a role; "" if none does."""
    texts = [path for path in reversed(free) if "{" not in path and not is_about(path)]
    by_name = {path.lower(): path for path in texts}
    near = difflib.get_close_matches(spec.lower(), by_name, n=1, cutoff=0.7)
    if near:
        return by_name[near[0]]
    words = WORDS.get(role, ())
    # first the columns whose names begin with a word: solutions before input_output
    for begins in (True, False):
        for word in words:
            for name, path in reversed(by_name.items()):
                if name.startswith(word) if begins else word in name:
                    return path
    if role not in WORDS or not by_name:
        return ""
    in_order = list(reversed(by_name.values()))
    return in_order[-1] if role in FROM_THE_END else in_order[0]


def is_about(path: str) -> bool:
    """Whether a column, or the field that a path ends in, is about a row."""
    name = path.lower().rsplit(".", maxsplit=1)[-1]
    return name in ABOUT or name.endswith(("_id", "_file"))


def _unknown_chat(records: Sequence[Values]) -> tuple[str, list[str]] | None:
    """A column with lists of objects that several texts are in: its name and their fields."""
    for values in records:
        for name, value in values.items():
            is_list = isinstance(value, list) and len(value) > 1
            if is_list and all(isinstance(item, Mapping) for item in value):
                fields = list(value[0])
                texts = [item for item in value[0].values() if isinstance(item, str)]
                if len(texts) > 1:
                    return name, fields
    return None
