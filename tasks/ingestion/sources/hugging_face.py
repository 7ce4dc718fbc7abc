"""Data sets of the Hugging Face library `datasets` -> records, file by file, streamed.

A local folder is what `save_to_disk` wrote, or files that `datasets` assigns to splits by their
names and README.md. Plain JSON, CSV and Parquet files of such a folder are read by this project's
file formats, so that a bad row costs one row; the library's own readers drop the rest of a file.
Data sets on the hub are streamed at a pinned commit.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from tasks.core.errors import PipelineError
from tasks.core.progress import say
from tasks.core.system.escape_text import first_line
from tasks.core.system.retry import retried
from tasks.ingestion.formats.files.parquet import records_of_table
from tasks.ingestion.formats.files.protocol import Records, UnreadableRecord
from tasks.ingestion.formats.files.registry import FILE_FORMATS, read_records

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

BATCH_ROWS = 256  # that are read at once: rows of a published data set may have many kB
SPLITS_FILE, TABLE_FILE = "dataset_dict.json", "state.json"  # what save_to_disk writes


class DataSetFile(NamedTuple):
    """A file (or whole table) of a data set: its path relative to the data set, and how it is read:
    columns (None: all) -> records."""

    path: str
    records: Callable[[Collection[str] | None], Records]


def local_files(root: Path, subset: str | None, split: str) -> Iterator[DataSetFile]:
    """The files of a split of a local folder, sorted.

    Raises:
        PipelineError: It holds no data set, or no such split.
    """
    import datasets

    def on_disk(folder: Path) -> Callable[[Collection[str] | None], Records]:
        load = partial(datasets.load_from_disk, str(folder))
        return partial(_loaded, load, "not a data set on disk")

    if (root / SPLITS_FILE).is_file():
        known = sorted(path.parent.name for path in root.glob(f"*/{TABLE_FILE}"))
        _check_split(str(root), split, known)
        yield DataSetFile(split, on_disk(root / split))
    elif (root / TABLE_FILE).is_file():
        yield DataSetFile(root.name, on_disk(root))
    else:
        yield from _files(root, subset, split)


def hub_table(hub_id: str, revision: str, subset: str | None, split: str) -> DataSetFile:
    """A split of a data set on the hub, streamed at a commit. Opening it is retried here; once it
    streams, the library retries by itself.

    Raises:
        PipelineError: The hub can't be reached, or has no such data set, commit or split.
    """
    import datasets

    say(f"streaming {hub_id} at {revision[:12]}")
    try:
        load = partial(datasets.load_dataset, hub_id, name=subset, revision=revision)
        found = retried(partial(load, split=split, streaming=True), hub_id)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise PipelineError(
            f"{hub_id} at {revision[:12]}, split {split!r}, can't be read: {first_line(error)}",
            "Check hub_id, revision, subset and split, and the network; for a private data set "
            "run `hf auth login`. Or download it and name its folder with `path`.",
        ) from error
    return DataSetFile(hub_id, partial(_streamed, found))


def _files(root: Path, subset: str | None, split: str) -> Iterator[DataSetFile]:
    import datasets

    try:
        builder = datasets.load_dataset_builder(str(root), name=subset)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise PipelineError(
            f"{root} is not a data set that `datasets` can read: {first_line(error)}",
            "Point `path` to a folder of JSON, CSV, Parquet, Arrow or text files, or to what "
            "save_to_disk wrote; see its README.md for `subset`.",
        ) from error
    by_split = {str(name): list(files) for name, files in builder.config.data_files.items()}
    _check_split(str(root), split, sorted(by_split))
    kind = type(builder).__module__.rpartition(".")[2]
    for file in sorted(map(str, by_split[split])):
        path = Path(file)
        shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        if path.is_file() and _is_own(kind, path, builder.config):
            yield DataSetFile(shown, partial(read_records, path))
        else:  # Arrow, text, XML, compressed files ...
            load = partial(datasets.load_dataset, kind, data_files={"train": [file]})
            stream = partial(load, split="train", streaming=True)
            yield DataSetFile(shown, partial(_loaded, stream, "the file can't be read"))


def _is_own(kind: str, path: Path, config: Any) -> bool:
    """Whether one of our formats reads a file as the library would: by its extension, without
    options."""
    suffix = path.suffix.lower()
    separator = "\t" if suffix == ".tsv" else ","
    has_options = getattr(config, "field", None) or getattr(config, "sep", separator) != separator
    known = any(form.name == kind and suffix in form.extensions for form in FILE_FORMATS)
    return known and not has_options


def _loaded(load: Callable[[], Any], wanted: str, columns: Collection[str] | None) -> Records:
    """Rows of a table of the library; one that can't be loaded is a single ledger entry."""
    import datasets

    try:
        table = load()
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        KeyError,
        datasets.exceptions.DatasetsError,
    ) as error:
        yield UnreadableRecord(0, f"{wanted}: {first_line(error)}", "")
        return
    yield from _streamed(table, columns)


def _streamed(table: "Dataset | IterableDataset", columns: Collection[str] | None) -> Records:
    """Rows in batches; an error of the library is reported, and the rest is left out."""
    import datasets

    number = 0
    try:
        for batch in table.with_format("arrow").iter(batch_size=BATCH_ROWS):
            wanted = [n for n in batch.column_names if columns is None or n in columns]
            yield from records_of_table(batch.select(wanted or batch.column_names[:1]), number)
            number += len(batch)
    except (pa.ArrowException, OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        problem = f"{first_line(error)}; `datasets` reads no further, the rest is left out"
        yield UnreadableRecord(number + 1, problem, "")


def _check_split(name: str, split: str, known: Sequence[str]) -> None:
    if split not in known:
        raise PipelineError(
            f"data set {name} has no split {split!r}; its splits: {', '.join(known) or 'none'}",
            "Set `split` of the source to one of them."
            if known
            else "Write it again with `save_to_disk`, or read its files as kind `files`.",
        )
