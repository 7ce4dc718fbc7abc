"""All code files of a source -> their rows, in worker processes and through the row cache: a file
that an earlier run has read with the same options is not parsed again.

What a file gives is cached as bytes of `marshal`, which reads plain values three times as fast as
any JSON library and runs no code. Fresh values take the same path, so the result does not depend on
what was cached.
"""

import marshal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.languages.protocol import NotParsableError
from tasks.core.languages.registry import PARSERS
from tasks.core.package_version import version
from tasks.core.rows.row_cache import by_content, fill, opened
from tasks.core.rows.row_cache_file import Values
from tasks.core.stage import Work
from tasks.core.system.parallel import without_gc
from tasks.ingestion.code_file import CodeFile, content_of
from tasks.ingestion.code_rows import CodeOptions, ExtractedCode, extract_file
from tasks.ingestion.rows import Row, Unreadable

TABLE_FILES, TABLE_BYTES = 64, 4 << 20  # of a table, at most; a table takes as long as 5 files
BATCH_FILES = 16  # of a batch, at least
FILES_FOR_PROCESSES = 400  # fewer are parsed sooner than processes start
FILES = pa.schema([("about", pa.binary()), ("content", pa.large_binary())])
# versions of marshal: keys are the same on every Python, and equal texts of a file are stored once
KEY, VALUES = 0, 4
NOTHING = Counter[str]()  # skipped of most files
SIZES = pa.schema([("source_bytes", pa.int64())])


def extract(
    files: Iterable[CodeFile],
    total: int,
    name: str,
    options: CodeOptions,
    work: Work,
    workers: int,
) -> Iterator[ExtractedCode]:
    """What each file gives, in order.

    Args:
        files: All files of a source.
        total: Their number, for the progress.
        name: Of the source.
        options: What is taken from them.
        work: Of the stage.
        workers: Processes.
    """
    parsers = [(name, version(name)) for name in PARSERS]
    # nothing here has reference cycles, and a second run mostly creates objects
    with (
        without_gc(),
        opened(work, (tuple(options), parsers), SIZES, np.uint8, part=name) as shards,
    ):
        fill(
            shards,
            by_content(_tables(files)),
            partial(_extract_batch, options),
            _files_of,
            work,
            workers=workers,
            batch_rows=BATCH_FILES,
            rows_for_processes=FILES_FOR_PROCESSES,
            progress=(f"read {name}", total),
        )
        yield from map(_unpacked, shards.all_numbers())


def _tables(files: Iterable[CodeFile]) -> Iterator[pa.Table]:
    """Batches of files, each file with its attributes and its content."""
    rows: list[tuple[bytes, bytes | None]] = []
    size = 0
    for file in files:
        rows.append(_as_row(file))
        size += len(rows[-1][1] or b"")
        if len(rows) == TABLE_FILES or size >= TABLE_BYTES:
            yield pa.table(list(zip(*rows, strict=True)), schema=FILES)
            rows, size = [], 0
    if rows:
        yield pa.table(list(zip(*rows, strict=True)), schema=FILES)


def _as_row(file: CodeFile) -> tuple[bytes, bytes | None]:
    """A file with its content, without its root, so that a moved folder stays cached. A file
    without readable content stays as it is, and `extract_file` reports the reason."""
    try:
        content = content_of(file)
    except (NotParsableError, OSError):
        content = None
    about = file if content is None else file._replace(root="", content=None)
    return marshal.dumps((*about,), KEY), content


def _files_of(table: pa.Table) -> list[CodeFile]:
    files = []
    for about, content in zip(*(column.to_pylist() for column in table.columns), strict=True):
        file = CodeFile._make(marshal.loads(about))
        files.append(file if content is None else file._replace(content=content))
    return files


def _extract_batch(options: CodeOptions, files: Sequence[CodeFile]) -> Values:
    with without_gc():
        extracted = [extract_file(file, options) for file in files]
    packed = list(map(_packed, extracted))
    sizes = pa.py_buffer(np.array([one.source_bytes for one in extracted], dtype=np.int64))
    # not `pa.array`, which imports pandas: that takes longer than all imports of a worker process
    column = pa.Array.from_buffers(pa.int64(), len(extracted), [None, sizes])
    return Values(
        pa.Table.from_arrays([column], schema=SIZES),
        np.frombuffer(b"".join(packed), dtype=np.uint8),
        np.array(list(map(len, packed)), dtype=np.int64),
    )


def _packed(one: ExtractedCode) -> bytes:
    rows, unreadable = list(map(tuple, one.rows)), list(map(tuple, one.unreadable))
    skipped = dict(one.skipped)
    values = rows, unreadable, skipped, one.candidates, one.source_bytes, one.language
    return marshal.dumps(values, VALUES)


def _unpacked(content: NDArray[np.uint8]) -> ExtractedCode:
    rows, unreadable, skipped, *others = marshal.loads(content.data)
    if unreadable:
        unreadable = list(map(Unreadable._make, unreadable))
    # `Row._make` without its check of the length, which takes longer than all of this function
    rows = list(map(partial(tuple.__new__, Row), rows))
    return ExtractedCode(rows, unreadable, Counter(skipped) if skipped else NOTHING, *others)
