"""Schemas of the Parquet tables that stages pass to each other, the only thing that they share.

A row keeps its `row_id` through all stages, so that each of its tokens can be traced to its source.
"""

import pyarrow as pa

# ingest.rows: one record of the user's data
ROWS = pa.schema(
    [
        ("row_id", pa.string()),  # blake2b-128 of the texts, hex; "-1" ... appended to copies
        ("instruction", pa.string()),
        ("input", pa.string()),  # "" where there is none
        ("output", pa.string()),
        # of a data file: "instruction", "conversation", "segments" or "text"; of code: "function"
        # (documented), "edit" (of a commit), "file", "fill" or "context"
        ("kind", pa.string()),
        ("source", pa.string()),  # name of the source in the settings
        # package, stdlib module, a folder (ends in "/"), or a file row's own id
        ("project", pa.string()),
        ("path", pa.string()),  # file, relative to its source
        ("line", pa.int32()),  # 1-based
        ("version", pa.string()),  # package version or commit; "" unknown
        ("licence", pa.string()),  # SPDX expression; "" unknown
        ("licence_evidence", pa.string()),  # where the licence was found
        # JSON with sorted keys, "" for rows that are instruction, input and output alone:
        # {"messages": [...], "tools"?: [...]}, {"segments": [...]}, {"fill": {...}} or
        # {"context": {repository, files: [[path, text], ...], comment, path, before, output}}.
        # instruction and output are then plain views: all text that is not trained, and all that is
        ("conversation", pa.string()),
        ("language", pa.string()),  # name in the registry of languages; "" unknown
        ("symbol", pa.string()),  # qualified name of the function; "" none
        ("date", pa.string()),  # UTC time of the last commit that changed it, ISO 8601; "" unknown
        ("repeats", pa.int32()),  # how often the row is trained on in an epoch: `weight`
    ]
)

# ingest.unreadable: records that could not become rows
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
    # least row_id of all rows linked by duplicates; train and test must not share a cluster
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
        # what the split never divides: the project; else, for a file or cluster, its least row id
        ("project", pa.string()),
        ("prompt", pa.string()),  # ends where the model starts to write
        ("completion", pa.string()),  # what the model should write; tokenization adds EOS
        # JSON of what is tokenized instead of both: messages or segments; "" for neither
        ("conversation", pa.string()),
        ("kind", pa.string()),  # "text": may be split into several samples; else ""
    ]
)

# between the id of a row and the number of its sample, for the second and further parts of a text
PART = "/"

# tokenize.<split>/rows.parquet: tokens of one sample, in training order
TOKENS = pa.schema(
    [
        ("row_id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),  # prompt + completion + EOS
        (
            "prompt_tokens",
            pa.int32(),
        ),  # first tokens, without labels; 0: loss on everything
    ]
)
# of a split with rows in which several runs of tokens are trained, or not all up to the end
SPANNED_TOKENS = TOKENS.append(
    pa.field("spans", pa.list_(pa.int32()))  # start and end of each run of trained tokens
)

# tokenize.<split>/windows.parquet: the packing plan
WINDOWS = pa.schema(
    [
        ("window", pa.int32()),
        ("rows", pa.list_(pa.int32())),  # indexes into rows.parquet; attention does not cross rows
        ("tokens", pa.int32()),  # tokens without padding, at most tokenize.window_tokens
    ]
)
