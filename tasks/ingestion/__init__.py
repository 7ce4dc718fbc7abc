"""Stage `ingest`: files and code of the user -> rows, and a ledger of what could not be read.

listing.py    which files a folder or glob holds, sorted
packages.py   where an installed distribution lies, without importing it
licences.py   SPDX licence from metadata, headers and LICENSE files, with evidence
sources.py    content digests of all sources, for the key
readers.py    JSONL, JSON, CSV, Parquet -> records
files.py      records -> rows
functions.py  Python text -> documented functions
code.py       code files -> rows, a chunk at a time
trees.py      packages and folders -> code files with project, version and licence
rows.py       the row and its id
sampling.py   a table -> an even sample of it
run.py        the stage
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="ingest",
    run="tasks.ingestion.run:run",
    outputs=("rows", "unreadable"),
    reads=("ingest",),
    env=("pyarrow",),
    sources="tasks.ingestion.sources:sources",
)
