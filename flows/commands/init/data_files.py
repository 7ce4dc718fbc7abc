"""Finds the data files below a folder that can be trained on, with the readers of `ingest`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import yaml

from tasks.core.errors import PipelineError
from tasks.core.languages.authorship import reason_of_name
from tasks.core.languages.python.definition import PYTHON
from tasks.ingestion.formats.detect import bind
from tasks.ingestion.formats.files.registry import (
    EXTENSIONS,
    PACKED_EXTENSIONS,
    is_data,
    read_records,
)
from tasks.ingestion.formats.read_rows import (
    READ_AS,
    RENDERED,
    UNUSED,
    SourceReader,
    opened,
)
from tasks.ingestion.formats.rows.protocol import ColumnMapping
from tasks.ingestion.remedies import remedy_for
from tasks.ingestion.rows import Row, Unreadable
from tasks.ingestion.sources.file_listing import walk

TRIED_RECORDS = 1000  # of each data file
TRIED_FILES = 500  # data files of a folder
MIN_RECORDS = 3  # of a file of rows; a JSON file with fewer is a program's own
TRAIN = re.compile(r"train([-_.]|ing)", re.IGNORECASE)
HELD_OUT = re.compile(r"(test|valid|validation|val|dev|eval)[-_.]", re.IGNORECASE)
TEST_SPLIT = "a test split next to a training split; to train on it, too, add it to `sources`"
REQUIRED = frozenset({"instruction", "output"})


@dataclass(frozen=True)
class DataFile:
    """A data file that rows can be read from, or could be with other settings.

    Attributes:
        path: Absolute.
        form: Row format; "" if no row can be read.
        take: Value of the source's setting `take`; "": none.
        columns: Columns that were guessed.
        rows: Rows among the first `TRIED_RECORDS` records.
        is_more: Whether it has more records.
        reading: Row format with the columns that have other names: "text (text: code)".
        unused: Columns that no role has.
        rendered: What to do about rows of text that look like chats; "" if they don't.
        is_chat: Whether its rows are conversations.
        has_tools: Whether some of them have tools.
        problem: Why no row can be read, and what to do.
    """

    path: Path
    form: str = ""
    take: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    is_more: bool = False
    reading: str = ""
    unused: tuple[str, ...] = ()
    rendered: str = ""
    is_chat: bool = False
    has_tools: bool = False
    problem: str = ""


def data_files(folder: Path) -> Iterable[Path]:
    """Files below a folder with the extension of a data format."""
    names = (n for n in walk(folder, "") if n.lower().endswith((*EXTENSIONS, *PACKED_EXTENSIONS)))
    paths = (folder / name for name in names if not _is_no_data(name))
    return islice(paths, TRIED_FILES)


def _is_no_data(path: str) -> bool:
    """Whether a file is in a folder of tests, of vendored code or of build outputs."""
    module = f"{path.rpartition('/')[0]}/module.py".removeprefix("/")
    return bool(reason_of_name(module)) or PYTHON.is_test(module)


def tried(path: Path, columns: Mapping[str, str] | None = None) -> DataFile:
    """A data file, read as the stage `ingest` reads it.

    Args:
        path: The file.
        columns: {role: column}; None: by their usual names.
    """
    if not path.name.lower().endswith((*EXTENSIONS, *PACKED_EXTENSIONS)) and not is_data(path):
        return DataFile(path)
    free = ColumnMapping(path.stem, columns or {}, REQUIRED, "")
    _, first = opened(lambda names: read_records(path, names), free)
    if len(first) < MIN_RECORDS:
        return DataFile(path)
    problem: PipelineError | None = None
    for take in ("", "chosen"):
        mapping = ColumnMapping(path.stem, columns or {}, REQUIRED, "", None, take or None)
        try:
            form = bind(mapping, first, path.name).form.name
            return _read(path, mapping, form, take)
        except PipelineError as error:
            problem = problem or error
    return DataFile(path, problem=_sentence(problem) if problem else "")


def without_test_splits(files: Sequence[DataFile]) -> list[DataFile]:
    """Of a published data set, the files for tests are not trained on."""
    trained = {file.path.parent for file in files if file.rows and TRAIN.match(file.path.name)}
    return [
        replace(file, rows=0, problem=TEST_SPLIT)
        if file.rows and file.path.parent in trained and HELD_OUT.match(file.path.name)
        else file
        for file in files
    ]


def _read(path: Path, mapping: ColumnMapping, form: str, take: str) -> DataFile:
    """A data file of a known format; with a problem if none of its records has a row.

    Raises:
        PipelineError: A column could be that of several roles.
    """
    reader = SourceReader(mapping)
    items = list(islice(reader.rows_of_file(path.parent, path.name), TRIED_RECORDS + 1))
    rows = [item for item in items if isinstance(item, Row)][:TRIED_RECORDS]
    if not rows:
        try:
            reader.check_columns()
        except PipelineError as error:
            return DataFile(path, problem=_sentence(error))
        problem = next((item.problem for item in items if isinstance(item, Unreadable)), "")
        return DataFile(path, problem=f"{problem}. {remedy_for(problem)}" if problem else "")
    chats = [row.conversation for row in rows if '"messages"' in row.conversation]
    return DataFile(
        path=path,
        form=form,
        take=take,
        columns=mapping.columns,
        rows=len(rows),
        is_more=len(items) > TRIED_RECORDS,
        reading=", ".join(_named(reader.counts, READ_AS)) or form,
        unused=_named(reader.counts, UNUSED),
        rendered=", ".join(RENDERED + note for note in _named(reader.counts, RENDERED)),
        is_chat=bool(chats),
        has_tools=any('"tool' in chat for chat in chats),
    )


def _named(counts: Mapping[str, int], beginning: str) -> tuple[str, ...]:
    """The rest of the names of counts with a beginning."""
    return tuple(name.removeprefix(beginning) for name in counts if name.startswith(beginning))


def _sentence(error: PipelineError) -> str:
    return f"{error.problem}. {error.remedy}"


def suggested(problem: str) -> dict[str, str]:
    """The columns that the remedy of an error names; {} if it names none or leaves a choice."""
    found = re.findall(r"`columns: (\{.+?\})`", problem)
    return dict(yaml.safe_load(found[0])) if len(found) == 1 else {}
