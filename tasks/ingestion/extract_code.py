"""All code files of a source -> their rows, in worker processes and through the row cache: a file
that an earlier run has read with the same options is not parsed again.

What a file gives is cached as JSON in bytes. Fresh values take the same path through JSON, so the
result does not depend on what was cached.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
from pydantic_core import from_json, to_json

from tasks.core.languages.protocol import NotParsableError
from tasks.core.languages.registry import PARSERS
from tasks.core.package_version import version
from tasks.core.rows.row_cache import fill, opened
from tasks.core.rows.row_cache_file import Values
from tasks.core.stage import Work
from tasks.core.system.parallel import without_gc
from tasks.ingestion.code_rows import (
    CodeFile,
    CodeOptions,
    ExtractedCode,
    content_of,
    extract_file,
)
from tasks.ingestion.rows import Row, Unreadable

BATCH_FILES = 16
FILES_FOR_PROCESSES = 400  # fewer are parsed sooner than processes start
FILES = pa.schema([("about", pa.string()), ("content", pa.large_binary())])
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
    with opened(work, (tuple(options), parsers), SIZES, np.uint8, part=name) as shards:
        digests = fill(
            shards,
            _tables(files),
            partial(_extract_batch, options),
            _files_of,
            work,
            workers=workers,
            batch_rows=BATCH_FILES,
            rows_for_processes=FILES_FOR_PROCESSES,
            progress=(f"read {name}", total),
        )
        for row in range(len(digests)):
            yield _unpacked(shards.numbers(row).tobytes())


def _tables(files: Iterable[CodeFile]) -> Iterator[pa.Table]:
    """Batches of files, each file with its attributes and its content."""
    remaining = iter(files)
    while some := list(islice(remaining, BATCH_FILES)):
        about, contents = zip(*map(_as_row, some), strict=True)
        yield pa.table([about, contents], schema=FILES)


def _as_row(file: CodeFile) -> tuple[str, bytes | None]:
    """A file with its content, without its root, so that a moved folder stays cached. A file
    without readable content stays as it is, and `extract_file` reports the reason."""
    try:
        content = content_of(file)
    except (NotParsableError, OSError):
        content = None
    about = vars(file) if content is None else {**vars(file), "root": "", "content": None}
    return json.dumps(list(about.values())), content


def _files_of(table: pa.Table) -> list[CodeFile]:
    files = []
    for about, content in zip(*(column.to_pylist() for column in table.columns), strict=True):
        file = CodeFile(*json.loads(about))
        files.append(file if content is None else replace(file, content=content))
    return files


def _extract_batch(options: CodeOptions, files: Sequence[CodeFile]) -> Values:
    with without_gc():
        extracted = [extract_file(file, options) for file in files]
    packed = [to_json(vars(one)) for one in extracted]
    sizes = pa.py_buffer(np.array([one.source_bytes for one in extracted], dtype=np.int64))
    # not `pa.array`, which imports pandas: that takes longer than all imports of a worker process
    column = pa.Array.from_buffers(pa.int64(), len(extracted), [None, sizes])
    return Values(
        pa.Table.from_arrays([column], schema=SIZES),
        np.frombuffer(b"".join(packed), dtype=np.uint8),
        np.array(list(map(len, packed)), dtype=np.int64),
    )


def _unpacked(content: bytes) -> ExtractedCode:
    values = from_json(content, cache_strings="none")  # three times as fast as `json`
    return ExtractedCode(
        rows=[Row(*row) for row in values["rows"]],
        unreadable=[Unreadable(*entry) for entry in values["unreadable"]],
        skipped=Counter(values["skipped"]),
        candidates=list(map(tuple, values["candidates"])),
        source_bytes=values["source_bytes"],
        language=values["language"],
    )
