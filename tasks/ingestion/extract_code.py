"""Code files -> what they give, one after another; a file that an earlier run has read with the
same settings is not parsed again.

What a file gives is kept as JSON in bytes, so it is the same whether it was just found or known.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple, replace
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa

from tasks.core.rows.row_cache import fill, opened
from tasks.core.rows.row_cache_file import Values
from tasks.core.stage import Work
from tasks.core.system.parallel import without_gc
from tasks.ingestion.code_rows import (
    Chunk,
    CodeFile,
    Harvest,
    content_of,
    harvest,
)
from tasks.ingestion.languages.python import NotPythonError
from tasks.ingestion.languages.python_doctests import Candidate, Problem
from tasks.ingestion.rows import Row, Unreadable

BATCH_FILES = 16
FILES_FOR_PROCESSES = 400  # fewer are parsed sooner than processes start
FILES = pa.schema([("about", pa.string()), ("content", pa.large_binary())])
FOUND = pa.schema([("source_bytes", pa.int64())])

Options = tuple[bool, bool, bool]  # keep_docstring, methods, doctests


def extract(
    files: Iterable[CodeFile],
    total: int,
    name: str,
    options: Options,
    work: Work,
    workers: int,
) -> Iterator[Harvest]:
    """What each file gives, in order.

    Args:
        files: All files of a source.
        total: How many they are, for the progress.
        name: Of the source.
        options: How they are read, as `Chunk` has it.
        work: Of the stage.
        workers: Processes.
    """
    arguments = (options, sys.version_info[:2])
    with opened(work, arguments, FOUND, np.uint8, part=name) as shards:
        digests = fill(
            shards,
            _tables(files),
            harvest_each,
            partial(_batch, options),
            work,
            workers=workers,
            batch_rows=BATCH_FILES,
            rows_for_processes=FILES_FOR_PROCESSES,
            progress=(f"read {name}", total),
        )
        for row in range(len(digests)):
            yield _unpacked(shards.numbers(row).tobytes())


def _tables(files: Iterable[CodeFile]) -> Iterator[pa.Table]:
    """The files, some at a time, each with what is told of it and its content."""
    coming = iter(files)
    while some := list(islice(coming, BATCH_FILES)):
        about, contents = zip(*map(_as_row, some), strict=True)
        yield pa.table([about, contents], schema=FILES)


def _as_row(file: CodeFile) -> tuple[str, bytes | None]:
    """A file with its content, where that can be had; else as it is, and reading it will tell."""
    try:
        content = content_of(file)
        file = replace(file, root="", content=None)
    except (NotPythonError, OSError):
        content = None
    return json.dumps([getattr(file, name) for name in CodeFile.__dataclass_fields__]), content


def _batch(options: Options, table: pa.Table) -> Chunk:
    files = []
    for about, content in zip(*(column.to_pylist() for column in table.columns), strict=True):
        file = CodeFile(*json.loads(about))
        files.append(file if content is None else replace(file, content=content))
    return Chunk(tuple(files), *options)


def harvest_each(chunk: Chunk) -> Values:
    """What each file of a chunk gives."""
    with without_gc():
        found = [harvest(replace(chunk, files=(file,))) for file in chunk.files]
    packed = [_packed(one) for one in found]
    return Values(
        pa.table([[one.source_bytes for one in found]], schema=FOUND),
        np.frombuffer(b"".join(packed), dtype=np.uint8),
        np.array(list(map(len, packed)), dtype=np.int64),
    )


def _packed(found: Harvest) -> bytes:
    candidates = [[row_id, *astuple(candidate)] for row_id, candidate in found.candidates]
    parts = [found.rows, found.unreadable, found.skipped, candidates, found.source_bytes]
    return json.dumps(parts, separators=(",", ":")).encode()


def _unpacked(content: bytes) -> Harvest:
    rows, unreadable, skipped, found, source_bytes = json.loads(content)
    candidates = [
        (row_id, Candidate(line, examples, program, Problem(*problem) if problem else None))
        for row_id, line, examples, program, problem in found
    ]
    return Harvest(
        [Row(*row) for row in rows],
        [Unreadable(*entry) for entry in unreadable],
        Counter(skipped),
        candidates,
        source_bytes,
    )
