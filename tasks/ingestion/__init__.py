"""Stage `ingest`: files, data sets and code of the user -> rows, a ledger of what could not be
read, and which functions can be run.

listing.py    which files a folder or glob holds, sorted
packages.py   where an installed distribution lies, without importing it
licences.py   SPDX licence from metadata, headers and LICENSE files, with evidence
sources.py    content digests of all sources, for the key
readers.py    JSONL, JSON, CSV, Parquet -> records
files.py      records -> rows
hugging_face.py  data sets of the library `datasets` -> records
functions.py  Python text -> documented functions
code.py       code files -> rows
extraction.py all code files of a source, in processes, each parsed once
git.py        a repository's commits, trees and files, by git's plumbing
repositories.py  a repository at a commit -> code files and edits
commits.py    which commits teach an edit
standalone.py a function with what it needs of its module
doctests.py   doctests -> programs for the sandbox, problems in HumanEval's form
executable.py which functions pass their doctests
trees.py      packages and folders -> code files with project, version and licence
rows.py       the row and its id
sampling.py   an even share of the rows, an even sample of a table
run.py        the stage
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="ingest",
    run="tasks.ingestion.run:run",
    outputs=("rows", "unreadable", "executable"),
    reads=("ingest",),
    env=("datasets", "numpy", "pyarrow"),
    sources="tasks.ingestion.sources:sources",
    schema=2,
)
