"""Stage `filter`: rows -> kept and rejected, with every reason and its measured value, and a
funnel.

sample.py       a row, with what several rules need of it worked out once
size.py         rules: lines, line lengths, letters
encoded.py      rules: generated code, encoded data
functions.py    rules: Python that parses, what makes a function worth learning
licences.py     rule: SPDX expression against the allow-list
rules.py        the table of the rules, with thresholds and kinds
judging.py      rows -> reasons and digests, a batch at a time
duplicates.py   digests -> which rows have a kept twin
funnel.py       counts, shares and examples for each reason
run.py          the stage
"""

from tasks.core.stage import Stage

STAGE = Stage(
    name="filter",
    run="tasks.filtering.run:run",
    outputs=("kept", "rejected"),
    inputs=("ingest.rows",),
    reads=("filter",),
    env=("pyarrow",),
)
