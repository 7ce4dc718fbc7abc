"""Files as users bring them, through the whole stage: every format under every name, layout and
compression gives the same rows. The table of formats in docs/your-data.md is tested here."""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import PipelineError
from tasks.core.settings.columns import RowFormatName
from tasks.ingestion.formats.files.json_table import JSON_TABLE

REPOSITORY = Path(__file__).resolve().parents[3]
NUMBERS = range(3)


def chat(number: int) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": f"do {number}"},
        {"role": "assistant", "content": f"x = {number}"},
    ]


def turns(number: int) -> list[dict[str, str]]:
    return [
        {"from": "human", "value": f"do {number}"},
        {"from": "gpt", "value": f"x = {number}"},
    ]


# records of each row format; all of them ask "do N" and answer "x = N"
FORMATS: dict[str, Callable[[int], dict[str, Any]]] = {
    "instruction": lambda n: {"instruction": f"do {n}", "output": f"x = {n}"},
    "alpaca": lambda n: {
        "instruction": f"do {n}",
        "output": f"x = {n}",
        "history": [["before", "after"]],
    },
    "messages": lambda n: {"messages": chat(n)},
    "sharegpt": lambda n: {"conversations": turns(n)},
    "prompt_completion": lambda n: {"prompt": f"do {n}", "completion": f"x = {n}"},
    "preference": lambda n: {"prompt": f"do {n}", "chosen": f"x = {n}", "rejected": "no"},
    "rated": lambda n: {"prompt": f"do {n}", "completion": f"x = {n}", "label": True},
    "segments": lambda n: {
        "segments": [{"text": f"do {n}", "label": False}, {"text": f"x = {n}", "label": True}]
    },
    "text": lambda n: {"text": f"x = {n}"},
}


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def wrapped(records: list[dict[str, Any]], name: str = "data", **options: Any) -> bytes:
    return json.dumps({"version": 1, name: records}, **options).encode()


def parquet(records: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), sink)
    return sink.getvalue()


def table(records: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=delimiter)
    writer.writerow([f" {name} " for name in records[0]])
    for record in records:
        values = record.values()
        writer.writerow([v if isinstance(v, str) else json.dumps(v) for v in values])
    return sink.getvalue().encode()


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


Write = Callable[[list[dict[str, Any]]], bytes]
FILES: dict[str, Write] = {
    "lines.jsonl": lines,
    "lines.ndjson": lines,
    "lines.json": lines,
    "array.json": lambda r: json.dumps(r).encode(),
    "array.jsonl": lambda r: json.dumps(r, indent=1).encode(),
    "array_in_one_line.jsonl": lambda r: json.dumps(r).encode(),
    "objects.jsonl": lambda r: "\n".join(json.dumps(one, indent=1) for one in r).encode(),
    "wrapped.json": wrapped,
    "wrapped.jsonl": lambda r: wrapped(r, indent=1),
    "rows.json": lambda r: wrapped(r, "rows", indent=1),
    "other_list.json": lambda r: wrapped(r, "my_tasks"),
    "comma.csv": table,
    "semicolon.csv": lambda r: table(r, ";"),
    "tab.csv": lambda r: table(r, "\t"),
    "tab.tsv": lambda r: table(r, "\t"),
    "comma.tsv": table,
    "structs.parquet": parquet,
    "packed.jsonl.gz": lambda r: gzip.compress(lines(r)),
    "packed.jsonl.zst": lambda r: zstd(lines(r)),
    "packed.csv.gz": lambda r: gzip.compress(table(r)),
    "packed.json.bz2": lambda r: bz2.compress(json.dumps(r).encode()),
    "packed.json.xz": lambda r: lzma.compress(wrapped(r)),
    "packed_under_another_name.jsonl": lambda r: gzip.compress(lines(r)),
    "no_ending": lines,
    "utf16.jsonl": lambda r: lines(r).decode().encode("utf-16"),
    "utf16.csv.gz": lambda r: gzip.compress(b"\xfe\xff" + table(r).decode().encode("utf-16-be")),
    "trailing_commas.jsonl": lambda r: b"".join(json.dumps(one).encode() + b",\n" for one in r),
    "rows_by_id.json": lambda r: json.dumps({f"row-{n}": one for n, one in enumerate(r)}).encode(),
    "export.txt": lambda r: json.dumps(r).encode(),
    "shards.data": parquet,
    "parquet_under_another_name.jsonl": parquet,
    "lines_under_another_name.csv": lines,
    "separator_named.csv": lambda r: b"sep=;\r\n" + table(r, ";"),
    "nested.json": lambda r: json.dumps({"version": 1, "data": {"train": r}}).encode(),
    "described.json": lambda r: json.dumps({"features": [{"name": "a"}], "rows": r}).encode(),
}


# a CSV file has no true and false
PAIRS = [(f, n) for f in FORMATS for n in FILES if f != "rated" or not re.search("sv", n)]


@pytest.mark.parametrize(("form", "name"), PAIRS)
def test_every_format_is_read_from_every_kind_of_file(ingest, tmp_path, form, name) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name]([FORMATS[form](n) for n in NUMBERS]))
    take = {"take": "chosen"} if form in ("preference", "rated", "ranked") else {}
    summary, rows, unreadable = ingest({"kind": "files", "path": str(path), **take})
    assert [row["output"] for row in rows] == [f"x = {n}" for n in NUMBERS] and not unreadable
    question = "" if form == "text" else "do {}"
    assert all(row["instruction"].endswith(question.format(n)) for n, row in enumerate(rows))
    assert summary.counts[f"read as {form}"] == len(NUMBERS)


def columns(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [record[name] for record in records] for name in records[0]}


TABLES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "lists": columns,
    "by number, as pandas writes": lambda r: {
        name: {str(n): value for n, value in enumerate(values)}
        for name, values in columns(r).items()
    },
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("indent", [None, 1])
def test_columns_of_a_json_file_are_rows(ingest, tmp_path, kind, indent) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps(TABLES[kind]([FORMATS["instruction"](n) for n in NUMBERS]), indent=indent)
    )
    _, rows, unreadable = ingest({"kind": "files", "path": str(path)})
    assert [row["output"] for row in rows] == [f"x = {n}" for n in NUMBERS] and not unreadable


ONE_RECORD: dict[str, dict[str, Any]] = {
    "chats": {"prompt": chat(1), "completion": chat(2)},
    "two nested columns": {"task": {"text": "do"}, "answer": {"text": "x"}},
    "lists of other lengths": {"instruction": ["do", "it"], "output": ["x", "y", "z"]},
}


@pytest.mark.parametrize("kind", ONE_RECORD)
def test_one_record_with_nested_values_is_no_table(tmp_path, kind) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ONE_RECORD[kind]))
    assert not JSON_TABLE.recognizes(tmp_path / "a.json")


UNUSUAL_NAMES: dict[str, dict[str, Any]] = {
    "the only chat": {"id": 7, "items": turns(1)},
    "the only chat, with roles": {"thread": chat(1)},
    "input and output": {"input": "do 1", "output": "x = 1"},
    "blanks around names": {"Instruction ": "do 1", " Response": "x = 1"},
    "inputs and targets": {"inputs": "do 1", "targets": "x = 1"},
    "speakers": {"human": "do 1", "gpt": "x = 1"},
    "code as the answer to a text": {"text": "do 1", "code": "x = 1", "task_id": 1},
    "a docstring and its code": {"docstring": "do 1", "code": "x = 1"},
    "a prompt with an input": {"prompt": "do 1", "input": "", "output": "x = 1"},
    "turns with text": {
        "conversations": [{"from": "human", "text": "do 1"}, {"from": "gpt", "text": "x = 1"}]
    },
    "parts": {
        "contents": [
            {"role": "user", "parts": [{"text": "do 1"}]},
            {"role": "model", "parts": [{"text": "x = 1"}]},
        ]
    },
    "pairs of turns": {"conversation": [{"human": "do 1", "assistant": "x = 1"}]},
    "texts in turn": {"dialog": ["do 1", "x = 1"]},
    "as Python prints it": {"messages": repr(chat(1))},
}


@pytest.mark.parametrize("kind", UNUSUAL_NAMES)
def test_columns_are_found_by_what_they_hold(ingest, tmp_path, write_jsonl, kind) -> None:
    write_jsonl(tmp_path / "a.jsonl", UNUSUAL_NAMES[kind])
    _, (row,), _ = ingest({"kind": "files", "path": str(tmp_path / "a.jsonl")})
    assert (row["instruction"], row["output"]) == ("do 1", "x = 1")


PREFERENCES: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "do 1", "chosen": "x = 1", "rejected": "no"},
    "conversations": {"chosen": chat(1), "rejected": chat(2)},
    "messages": {"prompt": chat(1)[:1], "chosen": chat(1)[1:], "rejected": chat(2)[1:]},
    "turns": {"conversations": turns(1)[:1], "chosen": turns(1)[1], "rejected": turns(2)[1]},
    "transcripts": {"chosen": "\n\nHuman: do 1\n\nAssistant: x = 1", "rejected": "\n\nHuman: a"},
}


@pytest.mark.parametrize("layout", PREFERENCES)
def test_chosen_answers_are_taken_from_every_layout_of_pairs(
    ingest, tmp_path, write_jsonl, layout
) -> None:
    write_jsonl(tmp_path / "a.jsonl", PREFERENCES[layout])
    _, (row,), _ = ingest({"kind": "files", "path": str(tmp_path / "a.jsonl"), "take": "chosen"})
    assert (row["instruction"], row["output"]) == ("do 1", "x = 1")


@pytest.mark.parametrize("mask", ["label", "train", "weight"])
def test_segments_have_masks_under_several_names(ingest, tmp_path, write_jsonl, mask) -> None:
    parts = [{"text": "do 1", mask: 0}, {"text": "x = 1", mask: 1}]
    write_jsonl(tmp_path / "a.jsonl", {"segments": parts})
    _, (row,), _ = ingest({"kind": "files", "path": str(tmp_path / "a.jsonl")})
    assert (row["instruction"], row["output"]) == ("do 1", "x = 1")


def test_earlier_turns_may_be_messages(ingest, tmp_path, write_jsonl) -> None:
    record = {"instruction": "do 1", "output": "x = 1", "history": chat(0)}
    write_jsonl(tmp_path / "a.jsonl", record)
    _, (row,), _ = ingest({"kind": "files", "path": str(tmp_path / "a.jsonl")})
    assert row["output"] == "x = 1" and "do 0" in row["instruction"]


def test_text_that_a_parquet_file_calls_bytes_is_text(ingest, tmp_path) -> None:
    record = {"instruction": b"do 1", "output": b"x = 1"}
    (tmp_path / "a.parquet").write_bytes(parquet([record, {**record, "output": b"\xff"}]))
    _, (row,), (bad,) = ingest({"kind": "files", "path": str(tmp_path / "a.parquet")})
    assert row["output"] == "x = 1" and bad["problem"] == "output is not valid UTF-8"


def test_a_second_list_of_a_json_file_is_reported(ingest, tmp_path) -> None:
    rows = [FORMATS["instruction"](n) for n in NUMBERS]
    (tmp_path / "a.json").write_text(json.dumps({"train": rows, "test": rows}))
    _, found, (bad,) = ingest({"kind": "files", "path": str(tmp_path / "a.json")})
    assert len(found) == len(rows) and "'test' is not read" in bad["problem"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_can_be_forced(ingest, tmp_path, form) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([FORMATS[form](n) for n in NUMBERS]))
    take = {"take": "chosen"} if form in ("preference", "rated", "ranked") else {}
    _, rows, _ = ingest({"kind": "files", "path": str(tmp_path), "format": form, **take})
    assert len(rows) == len(NUMBERS)


def test_table_of_formats_in_the_documentation_is_that_of_the_settings() -> None:
    text = (REPOSITORY / "docs" / "your-data.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", text, re.MULTILINE)
    assert [name for name, _ in rows] == list(RowFormatName.__args__)


@pytest.mark.parametrize("name", RowFormatName.__args__)
def test_example_of_a_format_in_the_documentation_is_read_as_that_format(
    ingest, tmp_path, name
) -> None:
    text = (REPOSITORY / "docs" / "your-data.md").read_text()
    (example,) = re.findall(rf"^\| `{name}` \| `(.+?)` \|", text, re.MULTILINE)
    (tmp_path / "a.jsonl").write_text(f"{example}\n{example}\n")
    take = {"take": "chosen"} if name in ("preference", "rated", "ranked") else {}
    summary, rows, _ = ingest({"kind": "files", "path": str(tmp_path), **take})
    assert len(rows) == 2 and summary.counts[f"read as {name}"] == 2


def test_paths_into_nested_fields_and_templates_are_columns(ingest, tmp_path, write_jsonl) -> None:
    record = {"task": {"title": "T", "body": "B {x}"}, "answers": [{"body": "a"}, {"body": "b"}]}
    path = write_jsonl(tmp_path / "a.jsonl", record, record)
    columns = {"instruction": "{task.title}:\n\n{task.body}", "output": "answers.-1.body"}
    _, rows, _ = ingest({"kind": "files", "path": str(path), "columns": columns})
    assert (rows[0]["instruction"], rows[0]["output"]) == ("T:\n\nB {x}", "b")


def test_column_whose_name_contains_a_dot_is_found(ingest, tmp_path, write_jsonl) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", {"task.text": "q", "output": "a"})
    columns = {"instruction": "task.text"}
    _, rows, _ = ingest({"kind": "files", "path": str(path), "columns": columns})
    assert rows[0]["instruction"] == "q"


def test_columns_of_a_parquet_file_may_be_paths(ingest, tmp_path) -> None:
    record = {"task": {"text": "q"}, "answers": [{"body": "a"}], "unused": 1}
    (tmp_path / "a.parquet").write_bytes(parquet([record]))
    columns = {"instruction": "task.text", "output": "answers.0.body"}
    summary, rows, _ = ingest({"kind": "files", "path": str(tmp_path), "columns": columns})
    assert rows[0]["output"] == "a" and summary.counts["column not used: unused"] == 1


def test_only_the_output_can_be_required(ingest, tmp_path, write_jsonl) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", {"text": "x = 1"})
    given = {"columns": {"output": "text"}, "required": ["output"]}
    _, rows, _ = ingest({"kind": "files", "path": str(path), **given})
    assert (rows[0]["kind"], rows[0]["output"]) == ("instruction", "x = 1")


@pytest.mark.parametrize("write", [lines, lambda records: json.dumps(records).encode()])
def test_bare_lists_of_messages_are_conversations(ingest, tmp_path, write) -> None:
    (tmp_path / "a.jsonl").write_bytes(write([chat(n) for n in NUMBERS]))
    _, rows, _ = ingest({"kind": "files", "path": str(tmp_path)})
    assert [row["output"] for row in rows] == ["x = 0", "x = 1", "x = 2"]


def test_null_fields_of_parquet_structs_are_absent_as_in_json(ingest, tmp_path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [*chat(1), {"role": "assistant", "content": "y", "tool_calls": [call]}]
    (tmp_path / "a.parquet").write_bytes(parquet([{"messages": messages}]))
    (tmp_path / "b.jsonl").write_bytes(lines([{"messages": messages}]))
    _, (first, second), _ = ingest({"kind": "files", "path": str(tmp_path)})
    assert first["conversation"] == second["conversation"]


def test_columns_of_two_formats_are_an_error_whose_remedy_works(
    ingest, tmp_path, write_jsonl
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", {"q": "do", "a": "x"})
    with pytest.raises(PipelineError, match="no format has together") as error:
        ingest(
            {"kind": "files", "path": str(path), "columns": {"instruction": "q", "messages": "a"}}
        )
    assert "instruction (instruction, input, output)" in error.value.remedy
    columns = {"instruction": "q", "output": "a"}
    assert ingest({"kind": "files", "path": str(path), "columns": columns})[1]
