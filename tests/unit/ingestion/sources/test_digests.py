import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.cache.digest_cache import sha256
from tasks.core.errors import PipelineError
from tasks.core.settings.config import View, check
from tasks.ingestion.sources.digests import source_digests, source_names
from tasks.ingestion.sources.packages import find_package


def digests(*given: dict) -> dict[str, str]:
    config = check({"ingest": {"sources": list(given)}})
    return source_digests(View(config, ("ingest",), "ingest"), sha256)


@pytest.mark.parametrize("change", ["content", "new file", "renamed"])
def test_any_change_of_a_folders_content_changes_its_digest(
    tmp_path, write_jsonl, row, change
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", row(), row(2), row(3))
    before = digests({"kind": "files", "path": str(tmp_path), "name": "s"})
    if change == "content":
        write_jsonl(path, row(1), row(2), row(3))
    elif change == "new file":
        write_jsonl(tmp_path / "b.jsonl", row())
    else:
        path.rename(tmp_path / "c.jsonl")
    assert digests({"kind": "files", "path": str(tmp_path), "name": "s"}) != before


def test_moved_folder_has_the_same_digest(tmp_path, write_jsonl, row) -> None:
    for name in ("x", "y"):
        write_jsonl(tmp_path / name / "a.jsonl", row(), row(2), row(3))
    first, second = (
        digests({"kind": "files", "path": str(tmp_path / name), "name": "s"}) for name in ("x", "y")
    )
    assert first == second


def test_license_file_of_a_source_tree_is_part_of_its_digest(tmp_path: Path) -> None:
    (tmp_path / "m.py").touch()
    given = {"kind": "folder", "path": str(tmp_path), "name": "s"}
    before = digests(given)
    (tmp_path / "LICENSE").write_text("MIT")
    assert digests(given) != before


def test_names_are_unique_and_follow_the_path() -> None:
    given = [
        {"kind": "files", "path": "x/tasks.jsonl"},
        {"kind": "folder", "path": "y/tasks"},
        {"kind": "packages"},
    ]
    settings = check({"ingest": {"sources": given}}).ingest.sources
    assert source_names(settings) == ["tasks", "tasks-2", "packages"]


def test_unknown_package_offers_the_nearest_name() -> None:
    with pytest.raises(PipelineError) as error:
        find_package("pyarow", include_tests=False)
    assert "'pyarow', which is not installed" in error.value.problem
    assert "'pyarrow'" in error.value.remedy


def test_package_is_found_by_its_record_without_tests() -> None:
    package = find_package("pytest", include_tests=False)
    assert "pytest/__init__.py" in package.files
    assert package.license_files and package.version and package.metadata


def test_standard_library_comes_without_its_tests() -> None:
    files = find_package("python", include_tests=False).files
    assert "json/decoder.py" in files
    assert not any(name.startswith(("test/", "site-packages/")) for name in files)


def test_listing_sources_imports_no_heavy_library_and_no_package() -> None:
    code = (
        "import sys; from tasks.core.settings.config import View, check\n"
        "from tasks.ingestion.sources.digests import source_digests\n"
        "c = check({'ingest': {'sources': [{'kind': 'packages', 'names': ['hypothesis']}]}})\n"
        "source_digests(View(c, ('ingest',), 'ingest'), lambda path: 'x')\n"
        "print([m for m in ('pyarrow', 'numpy', 'hypothesis', 'prefect') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"kind": "files", "pth": "x"}, "pth: unknown field"),
        ({"kind": "packages", "max_rows": 0}, "max_rows"),
        ({"kind": "folder", "licence": "a; b"}, "licence"),
    ],
)
def test_wrong_setting_of_a_source_is_one_problem(source: dict, field: str) -> None:
    with pytest.raises(PipelineError) as error:
        check({"ingest": {"sources": [source]}})
    assert field in error.value.problem and ";" not in error.value.problem.replace("a; b", "")


def test_no_source_at_all_is_an_error() -> None:
    with pytest.raises(PipelineError, match="no source"):
        check({"ingest": {"sources": []}})
