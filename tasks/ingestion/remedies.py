"""The error of a run without any row: the most frequent problem of the ledger, and its remedy.

The remedy is found by the text of the problem, which is all that the ledger stores. The ledger may
have been written by another process, and contains problems of libraries and of user data alike, so
each kind of text has one remedy here.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.ingestion.formats.column_errors import in_yaml
from tasks.ingestion.sources.file_listing import UNPACK

ROLE = r"^(?P<role>[\w.-]+)(?: \(column (?P<column>.+?)\))? "
# (problem, remedy), the first that matches; \1 is the name in the problem, ROLE and COLUMN are
# those of a text
REMEDIES = (
    (r"UTF-32", "Convert the file: `iconv -f UTF-32 -t UTF-8 FILE > NEW`."),
    (r"(?s)not (?:valid )?UTF-8", "Convert the file from its encoding, of Western Europe: "
     "`iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW`; of Chinese: GB18030, of Japanese: SHIFT_JIS, of "
     "Korean: CP949, of Russian: WINDOWS-1251, instead of WINDOWS-1252."),
    (r"half of a character", r"Write both halves, as in \\ud83d\\ude00, or remove the one."),
    (r"is a (zip|7z|tar) archive", UNPACK),
    (r"pointer of Git LFS", "Fetch the content: `git lfs pull` in the repository."),
    (r"compressed data is damaged", "Copy or download the file again."),
    (r"Permission denied", "Let your user read the file: `chmod u+r FILE`."),
    (r"\(a comment\?\)", "Remove the comments from the file: JSON has none."),
    (r"malformed JSON|is a JSON|contains no JSON", "Write one JSON object per line, or one array "
     'of objects, such as {"instruction": "...", "output": "..."}, or {"text": "..."} for text.'),
    (r"malformed CSV|fields, the header has", "Give each row as many fields as the first line: put "
     'fields that contain a separator, a quote or a line end in quotes, and write a quote inside '
     'as "".'),
    (ROLE + r"is of type (?:int|float|bool)", "Turn it into text with a template: `columns: "
     '{ROLE: "{COLUMN}"}` of the source.'),
    (ROLE + r"is of type list", "Name an item of it: `columns: {ROLE: COLUMN.0}` of the source."),
    (ROLE + r"is of type dict", "Name a field inside it by its path, such as `columns: {ROLE: "
     "COLUMN.text}` of the source."),
    (r"^instruction(?: \(column .+\))? is empty$", "Allow rows without it: `required: [output]` of "
     "the source."),
    (ROLE + r"is empty", "Fill in column COLUMN: a row without it can't be trained on."),
    (r"read for text only", "Unpack the file, for example with `gunzip FILE`."),
    (r"holds no list of \[question, answer\]", "Write each earlier turn as [question, answer], or "
     "as messages {role, content}."),
    (r"more than one list", "Write each list to a file of its own."),
    (r"NUL byte", "Remove these bytes: `tr -d '\\\\000' < FILE > NEW`."),
    (r"no message of an assistant", "Add answers with the role assistant: only these are trained."),
    (r"has the role|is from", "Rename the roles to system, user, assistant and tool."),
    (r"only text is read", "Remove images, audio and files from the messages."),
    (r"has no label true or false", "Give each segment a field `label`: true for text to learn, "
     "false for text that is only read."),
    (r"columns are called", "Give each column a name of its own in the first line of the file."),
    (r"no label is true", "Set `label` to true for the segments to learn."),
    (r"not a Parquet file", "Give the file the extension of its format."),
    (r"not valid Python", "Point `path` to Python 3 code."),
    (r"longer than", "Split the file into smaller records."),
)  # fmt: skip
OTHERWISE = "Correct the input, or point `ingest.sources` to other files."


def no_rows(ledger: Path, sources: str, bad: int, skipped: Mapping[str, int]) -> PipelineError:
    """The error of a run without a single row.

    Args:
        ledger: unreadable.parquet.
        sources: Number of sources, as text.
        bad: Number of its entries.
        skipped: What was left out, by reason.
    """
    import pyarrow.parquet as pq

    if not bad:
        return PipelineError(
            f"ingest read {sources} and found no rows in them"
            + "".join(f", {number:,} {reason}" for reason, number in skipped.items() if number),
            "Point `ingest.sources` to files with rows, or to code with documented functions.",
        )
    entries = pq.read_table(ledger, columns=["path", "line", "problem"]).to_pylist()
    kinds = Counter(_kind(entry["problem"]) for entry in entries)
    kind, count = kinds.most_common(1)[0]
    first = next(entry for entry in entries if _kind(entry["problem"]) == kind)
    where = f"{first['path']} line {first['line']}" if first["line"] else first["path"]
    share = "the first" if count == bad else f"{count:,} of them as the first such one"
    return PipelineError(
        f"ingest read 0 rows from {sources}, {bad:,} unreadable; "
        f"{share}, {where}: {first['problem']}",
        remedy_for(first["problem"]),
    )


def _kind(problem: str) -> int:
    found = (n for n, (pattern, _) in enumerate(REMEDIES) if re.search(pattern, problem))
    return next(found, len(REMEDIES))


def remedy_for(problem: str) -> str:
    """What to do about a problem of the ledger."""
    for pattern, remedy in REMEDIES:
        if match := re.search(pattern, problem):
            role = match.groupdict()
            if not role:
                return match.expand(remedy)
            column = in_yaml(role["column"] or role["role"]).strip('"')
            name = role["role"].partition(".")[0]
            return remedy.replace("ROLE", name).replace("COLUMN", column)
    return OTHERWISE
