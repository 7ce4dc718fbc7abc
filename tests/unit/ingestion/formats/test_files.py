import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.ingestion.formats.files import json_layout, parquet, text_lines
from tasks.ingestion.formats.files.protocol import Record, UnreadableRecord
from tasks.ingestion.formats.files.registry import read_records
from tasks.ingestion.rows import excerpt

COLUMNS = ("instruction", "output")


def read(path: Path) -> tuple[list[tuple[int, dict]], list[tuple[int, str]]]:
    items = list(read_records(path, COLUMNS))
    records = [(i.line, dict(i.values)) for i in items if isinstance(i, Record)]
    return records, [(i.line, i.problem) for i in items if isinstance(i, UnreadableRecord)]


def test_malformed_jsonl_line_keeps_its_number_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"output": 1}\n\n{"output": \n{"output": 2}\n')
    records, problems = read(path)
    assert records == [(1, {"output": 1}), (4, {"output": 2})]
    assert [line for line, _ in problems] == [3] and "malformed JSON" in problems[0][1]


def test_wrong_encoding_in_jsonl_is_reported_by_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"output": "ok"}\n{"output": "caf\xe9"}\n')
    records, problems = read(path)
    assert len(records) == 1
    assert problems == [(2, "byte 0xe9 is not UTF-8")]


def test_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"output": "ok"}\n')
    assert read(path) == ([(1, {"output": "ok"})], [])


def test_utf32_file_is_one_problem_not_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"output": "ok"}\n' * 5, encoding="utf-32")
    assert read(path) == ([], [(0, "the file is UTF-32 text, expected UTF-8 text")])


def test_utf16_file_that_ends_within_a_character_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"output": "ok"}\n'.encode("utf-16")[:-1])
    _, ((_, problem),) = read(path)
    assert "damaged" in problem


def test_half_of_a_character_in_utf16_is_a_problem_of_its_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = '{"output": "ok"}\n'
    path.write_bytes(f"{good}{{\ud800}}\n{good}".encode("utf-16", "surrogatepass"))
    rows, problems = read(path)
    assert [number for number, _ in rows] == [1, 3] and [number for number, _ in problems] == [2]


def test_jsonl_line_that_is_no_object_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[1]\n")
    assert read(path) == ([], [(1, "is a JSON list, expected an object")])


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_json_array_is_the_same_for_any_size_of_the_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, piece: int
) -> None:
    rows = [{"output": "é" * n, "n": 12345} for n in range(20)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(text_lines, "READ_CHARACTERS", piece)
    records, problems = read(path)
    assert [values for _, values in records] == rows and not problems


def test_json_array_keeps_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[\n{"output": 1},\n\n{"output":\n 2}\n, {"output": 3}]')
    assert [line for line, _ in read(path)[0]] == [2, 4, 6]


def test_damaged_json_array_gives_the_objects_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"output": 1},\n {"output": ]')
    records, problems = read(path)
    assert len(records) == 1
    assert problems[0][0] == 2 and "the rest of the file is left out" in problems[0][1]


def test_json_file_with_one_object_a_line_is_read_as_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"output": 1}\n{"output": 2}\n')
    assert [line for line, _ in read(path)[0]] == [1, 2]


def test_csv_row_with_a_field_too_many_is_a_problem_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('instruction,output\na,"x\ny"\nb,c,d\ne,f\n')
    records, problems = read(path)
    assert [(line, values["instruction"]) for line, values in records] == [(2, "a"), (5, "e")]
    assert records[0][1]["output"] == "x\ny"
    assert problems == [(4, "3 fields, the header has 2")]


def test_csv_field_may_be_longer_than_the_modules_default_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"instruction,output\na,{'x' * 200_000}\n")
    assert len(read(path)[0][0][1]["output"]) == 200_000


def test_tsv_is_split_at_tabs(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("instruction\toutput\na, b\tc\n")
    assert read(path)[0] == [(2, {"instruction": "a, b", "output": "c"})]


def test_parquet_reads_only_the_columns_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"output": ["x", "y"], "embedding": [1, 2]}), path)
    assert read(path)[0] == [(1, {"output": "x"}), (2, {"output": "y"})]


def test_file_that_is_no_parquet_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("no parquet")
    records, problems = read(path)
    assert not records and problems[0][0] == 0 and "not a Parquet file" in problems[0][1]


def test_file_that_vanished_is_one_problem(tmp_path: Path) -> None:
    assert "can't be read" in read(tmp_path / "gone.jsonl")[1][0][1]


def invalid_list() -> pa.Array:
    """Three lists of one text, of which the second is not UTF-8."""
    texts = pa.array([b"a", b"\xff", b"c"])
    broken = pa.Array.from_buffers(pa.string(), 3, texts.buffers())
    return pa.ListArray.from_arrays([0, 1, 2, 3], broken)


def test_invalid_utf8_in_a_list_of_a_parquet_file_costs_one_row(ingest, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"instruction": ["x", "y", "z"], "output": invalid_list()}), path)
    columns = {"output": "output.0"}
    _, rows, unreadable = ingest({"kind": "files", "path": str(path), "columns": columns})
    assert [row["output"] for row in rows] == ["a", "c"]
    assert [(entry["line"], entry["problem"]) for entry in unreadable] == [
        (2, "output.0 holds text that is not valid UTF-8")
    ]


def test_value_that_python_can_not_represent_costs_one_row(ingest, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    dates = pa.array([[0], [2**55], [0]], pa.list_(pa.timestamp("ms")))
    pq.write_table(pa.table({"instruction": ["x", "y", "z"], "output": dates}), path)
    given = {"kind": "files", "path": str(path), "columns": {"output": "instruction"}}
    given["columns"] |= {"project": "output"}
    _, rows, _ = ingest({**given, "required": ["output"]})
    assert [row["project"] == row["row_id"] for row in rows] == [False, True, False]


def test_batches_of_a_parquet_file_are_bounded_in_bytes(tmp_path, monkeypatch) -> None:
    path, sizes = tmp_path / "a.parquet", []
    text = "".join(map(chr, range(33, 127))) * 100
    pq.write_table(pa.table({"output": [f"{n}{text}" for n in range(200)]}), path)
    monkeypatch.setattr(parquet, "BATCH_BYTES", 20 * len(text))
    read_table = parquet.records_of_table

    def counted(table, before):
        sizes.append(table.num_rows)
        return read_table(table, before)

    monkeypatch.setattr(parquet, "records_of_table", counted)
    assert len(read(path)[0]) == 200 and max(sizes) <= 20


def test_excerpt_of_an_object_has_no_memory_address() -> None:
    assert excerpt({"a": object()}) == "{'a': <object object>}"


def test_list_inside_a_single_record_is_not_taken_for_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"output": "x", "answers": [{"body": "a"}, {"body": "b"}]}\n')
    assert [values["output"] for _, values in read(path)[0]] == ["x"]


def test_lines_of_an_enclosed_list_are_counted_from_the_beginning_of_the_file(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"version": 1,\n "data": [\n{"output": 1},\n{"output": 2}\n], "more": [1]}')
    assert read(path) == ([(3, {"output": 1}), (4, {"output": 2})], [])


def test_enclosed_list_larger_than_the_window_is_read(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.json"
    rows = [{"output": "x" * 100, "n": n} for n in range(100)]
    path.write_text(json.dumps({"version": 1, "rows": rows}))
    monkeypatch.setattr(json_layout, "HEAD_CHARACTERS", 64)
    monkeypatch.setattr(text_lines, "READ_CHARACTERS", 50)
    assert [values["n"] for _, values in read(path)[0]] == list(range(100))


def test_separator_is_that_of_most_rows_not_one_inside_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("instruction;output\n" + "do, now, that;x, y\n" * 5)
    assert {tuple(values.values()) for _, values in read(path)[0]} == {("do, now, that", "x, y")}


def test_maps_of_parquet_are_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    kind = pa.list_(pa.map_(pa.string(), pa.string()))
    turns = [[("role", "user"), ("content", "q")], [("role", "assistant"), ("content", "a")]]
    pq.write_table(pa.table({"output": pa.array([turns], kind)}), path)
    assert read(path)[0] == [(1, {"output": [dict(turn) for turn in turns]})]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_utf16_without_a_byte_order_mark_is_read(tmp_path: Path, encoding: str, name: str) -> None:
    text = '{"output": "é"}\n' if name == "a.jsonl" else "output,n\né,1\n"
    (tmp_path / name).write_bytes(text.encode(encoding))
    ((_, values),), problems = read(tmp_path / name)
    assert values["output"] == "é" and not problems


JSON_TEXTS = {
    "comments between objects": '// about\n[\n{"output": 1}, // one\n/* two */ {"output": 2},\n]\n',
    "objects without line breaks": '{"output": 1}{"output": 2}',
    "record separators": '\x1e{"output": 1}\n\x1e{"output": 2}\n',
    "names and lists of values": '{"columns": ["output"], "index": [0, 1], "data": [[1], [2]]}',
}


@pytest.mark.parametrize("name", JSON_TEXTS)
def test_other_layouts_of_json_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / ("a.json" if "comments" in name else "a.jsonl")
    path.write_text(JSON_TEXTS[name])
    records, problems = read(path)
    assert [values for _, values in records] == [{"output": 1}, {"output": 2}] and not problems


def test_comments_before_the_header_of_csv_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("# made by a tool, in May\n# x\ninstruction;output\nq;a\nr;b\n")
    records, problems = read(path)
    assert [values["output"] for _, values in records] == ["a", "b"] and not problems


def test_a_header_of_csv_may_begin_like_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("# id,output\n1,a\n2,b\n")
    assert [values for _, values in read(path)[0]] == [
        {"# id": "1", "output": "a"},
        {"# id": "2", "output": "b"},
    ]


def test_files_with_byte_order_marks_that_were_joined_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"output": 1}\n\ufeff{"output": 2}\n')
    assert [values for _, values in read(path)[0]] == [{"output": 1}, {"output": 2}]
