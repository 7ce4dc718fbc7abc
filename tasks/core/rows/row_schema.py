"""Tables that pass from one stage to another: all that stage packages share with each other.

Every table is Parquet. A row keeps its `row_id` from ingest to the last window, so that its
whole story can be told.
"""

import pyarrow as pa

# ingest.rows: one record of the user's data
ROWS = pa.schema(
    [
        ("row_id", pa.string()),  # blake2b-128 of the content and its origin, hex
        ("instruction", pa.string()),
        ("input", pa.string()),  # "" where there is none
        ("output", pa.string()),
        # "instruction" (of a file), "function" (documented) or "edit" (of a commit)
        ("kind", pa.string()),
        ("source", pa.string()),  # name of the source in the settings
        (
            "project",
            pa.string(),
        ),  # what rows must not be split across: package, stdlib module, file row's own id
        ("path", pa.string()),  # file, relative to its source
        ("line", pa.int32()),  # 1-based
        ("version", pa.string()),  # package version or commit; "" unknown
        ("licence", pa.string()),  # SPDX expression; "" unknown
        ("licence_evidence", pa.string()),  # where the licence was read
    ]
)

# ingest.unreadable: what could not become a row
UNREADABLE = pa.schema(
    [
        ("source", pa.string()),
        ("path", pa.string()),
        ("line", pa.int32()),  # 0: the whole file
        ("problem", pa.string()),
        ("excerpt", pa.string()),  # at most 200 characters
    ]
)

# one failed rule of one row
REASON = pa.struct(
    [
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("note", pa.string()),
    ]
)

# filter.kept; texts are redacted
KEPT = ROWS.append(
    # least row_id of all rows tied to this one by duplicates; what train and test must not share
    pa.field("cluster", pa.string())
).append(
    # JSON list of [column, type, start, end], characters of the text as ingested; "" for none
    pa.field("redactions", pa.string())
)
REJECTED = KEPT.append(pa.field("reasons", pa.list_(REASON)))  # filter.rejected

# prompt.train, prompt.validation, prompt.test
PROMPTS = pa.schema(
    [
        ("row_id", pa.string()),
        ("project", pa.string()),
        ("prompt", pa.string()),  # ends where the model begins to write
        ("completion", pa.string()),  # what it should write; EOS is added when tokenized
    ]
)

# tokenize.<split>/rows.parquet: tokens of one sample, in training order
TOKENS = pa.schema(
    [
        ("row_id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),  # prompt + completion + EOS
        ("prompt_tokens", pa.int32()),  # the first so many carry no label; 0: loss on everything
    ]
)

# tokenize.<split>/windows.parquet: the packing plan
WINDOWS = pa.schema(
    [
        ("window", pa.int32()),
        ("rows", pa.list_(pa.int32())),  # indexes into rows.parquet, isolated from each other
        ("tokens", pa.int32()),  # real tokens, at most tokenize.window_tokens
    ]
)
