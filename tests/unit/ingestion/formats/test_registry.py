from pathlib import Path
from typing import get_args

import pytest

from tasks.core.settings.ingest import RowFormatName
from tasks.ingestion.formats.files.json_array import JSON_ARRAY
from tasks.ingestion.formats.files.jsonl import JSONL
from tasks.ingestion.formats.files.registry import EXTENSIONS, FILE_FORMATS, file_format
from tasks.ingestion.formats.rows.registry import ROW_FORMATS


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_extension_has_a_format_whatever_the_content(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a{extension.upper()}"
    path.write_bytes(b"\xff\0")
    assert extension in file_format(path).extensions


@pytest.mark.parametrize(
    ("content", "form"),
    [('\n{"a": 1}\n{"a": 2}\n', JSONL), ('[{"a": 1}]', JSON_ARRAY), ('{"a":\n1}', JSON_ARRAY)],
)
def test_json_file_is_read_in_the_form_that_its_first_line_shows(tmp_path, content, form) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    assert file_format(path) is form


def test_formats_that_share_an_extension_recognize_their_files() -> None:
    for extension in EXTENSIONS:
        shared = [form for form in FILE_FORMATS if extension in form.extensions]
        assert all(form.recognizes for form in shared[:-1])


def test_every_row_format_is_a_value_of_the_setting() -> None:
    assert set(ROW_FORMATS) == set(get_args(RowFormatName))
