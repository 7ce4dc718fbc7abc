"""Stage `filter`: rows -> kept and rejected, with every reason and its measured value, and a
funnel.

sample.py       a row, with what several rules need of it worked out once
size.py         rules: lines, line lengths, letters
encoded.py      rules: generated code, encoded data
functions.py    rules: Python that parses, what makes a function worth learning
licences.py     rule: SPDX expression against the allow-list
rules.py        the table of the rules, with thresholds and kinds
secrets.py      formats of tokens and passwords
privacy.py      text -> text with placeholders for secrets, e-mail and IP addresses
words.py        texts -> hashes of words and n-grams
minhash.py      n-grams -> signatures -> band keys
duplicates.py   keys -> which rows have a kept twin, and clusters
benchmarks.py   tasks that must not be trained on
shapes.py       function -> digest of its syntax tree, names aside
contamination.py  rows that hold a task: substring, n-grams, syntax
execution.py    rows that hold a task: its tests pass
judging.py      rows -> reasons, measured values and keys, a batch at a time
spool.py        what was found, on disk between the two passes
dealing.py      second pass: kept, rejected, measurements
whatif.py       rows kept if a threshold moves
funnel.py       counts, shares and examples for each reason
sources.py      digests of the benchmarks' data, for the key
run.py          the stage
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="filter",
    run="tasks.filtering.run:run",
    outputs=("kept", "rejected"),
    inputs=("ingest.rows",),
    reads=("filter",),
    env=("pyarrow", "numpy"),
    sources="tasks.filtering.sources:sources",
)
