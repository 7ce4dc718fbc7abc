"""Stage `ingest`: files, data sets and code of the user -> rows, a ledger of unreadable input, and
the functions that pass their doctests.

sources/    kinds of sources: listing, digests for the cache key, reading
formats/    bytes of a data file -> records -> rows
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="ingest",
    run="tasks.ingestion.run:run",
    outputs=("rows", "unreadable", "executable"),
    reads=("ingest",),
    env=("datasets", "numpy", "packaging", "pyarrow"),
    sources="tasks.ingestion.sources.digests:source_digests",
    schema=2,
)
