from pathlib import Path

import pytest

from tasks.core.errors import PipelineError
from tasks.ingestion.formats.read_rows import SourceReader
from tasks.ingestion.formats.rows.protocol import ColumnMapping
from tasks.ingestion.rows import Row, Unreadable


def read(path: Path, **columns: str) -> list[Row | Unreadable]:
    required = frozenset({"instruction", "output"})
    reader = SourceReader(ColumnMapping("s", columns, required, ""))
    rows = list(reader.rows_of_file(path.parent, path.name))
    reader.check_columns()
    return rows


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"output": ""}, "output is empty"),
        ({"output": "  \n"}, "output is empty"),
        ({"output": None}, "output is empty"),
        ({"output": 3}, "output is of type int, expected text"),
        ({"output": "a\0b"}, "output contains a NUL byte"),
        ({"output": "\ud800"}, "output has half of a character"),
        ({"input": ["a"]}, "input is of type list, expected text"),
        ({"instruction": "", "output": 1}, "instruction is empty; output is of type int"),
    ],
)
def test_bad_value_is_reported_with_its_line(tmp_path, write_jsonl, row, bad, problem) -> None:
    good, ledger = read(write_jsonl(tmp_path / "a.jsonl", row(), row(1, **bad)))
    assert isinstance(good, Row)
    assert isinstance(ledger, Unreadable) and ledger.line == 2 and problem in ledger.problem


def test_column_missing_from_one_row_is_one_ledger_entry(tmp_path, write_jsonl, row) -> None:
    first, second = read(write_jsonl(tmp_path / "a.jsonl", row(), {"instruction": "a"}))
    assert isinstance(first, Row)
    assert isinstance(second, Unreadable) and second.problem == "no column 'output'"


def test_column_missing_from_all_rows_names_those_found_and_the_nearest(
    tmp_path, write_jsonl
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", {"instruction": "a", "outputs": "b"})
    with pytest.raises(PipelineError) as error:
        read(path)
    assert "none of its 1 rows has column 'output'" in error.value.problem
    assert "instruction, outputs" in error.value.problem
    assert "columns: {output: outputs}" in error.value.remedy


def test_input_column_may_be_absent(tmp_path, write_jsonl) -> None:
    (only,) = read(write_jsonl(tmp_path / "a.jsonl", {"instruction": "a", "output": "b"}))
    assert isinstance(only, Row) and only.input == ""


def test_input_column_that_the_settings_name_must_be_there(tmp_path, write_jsonl, row) -> None:
    with pytest.raises(PipelineError, match="context"):
        read(write_jsonl(tmp_path / "a.jsonl", row()), input="context")


def test_row_put_in_at_the_top_leaves_all_other_ids(tmp_path, write_jsonl, row) -> None:
    path = tmp_path / "a.jsonl"
    before = [r.row_id for r in read(write_jsonl(path, row(1), row(2)))]
    after = [r.row_id for r in read(write_jsonl(path, row(0), row(1), row(2)))]
    assert after[1:] == before


def test_project_is_the_rows_own_id_unless_a_column_names_it(tmp_path, write_jsonl, row) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", row(repo="x/y"))
    assert read(path)[0].project == read(path)[0].row_id
    assert read(path, project="repo")[0].project == "x/y"


def test_license_column_overrides_the_stated_license(tmp_path, write_jsonl, row) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", row(license="MIT"), row(1, license=None))
    columns = {"licence": "license"}
    reader = SourceReader(ColumnMapping("s", columns, frozenset({"output"}), "CC0-1.0"))
    first, second = reader.rows_of_file(path.parent, path.name)
    assert (first.licence, first.licence_evidence) == ("MIT", "column license")
    assert (second.licence, second.licence_evidence) == ("CC0-1.0", "stated in the settings")
