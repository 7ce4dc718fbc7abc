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
minhash.py      n-grams -> signatures -> band keys
duplicates.py   keys -> which rows have a kept twin, and clusters
benchmarks.py   tasks that must not be trained on
judging.py      rows -> reasons, measured values and keys, a batch at a time
spool.py        what was found, for the passes behind
dealing.py      second pass: kept, rejected, measurements
whatif.py       rows kept if a threshold moves
funnel.py       counts, shares and examples for each reason
picture.py      the funnel as a picture
sources.py      digests of the benchmarks' data, for the key
run.py          the stage

Which rows hold a task is told by `tasks.core.decontamination`, which the stage prompt asks too.
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="filter",
    run="tasks.filtering.run:run",
    outputs=("kept", "rejected"),
    inputs=("ingest.rows", "ingest.executable"),
    reads=("filter", "evaluate.sets"),
    env=("pyarrow", "numpy"),
    sources="tasks.filtering.sources:sources",
)
