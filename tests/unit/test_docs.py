"""docs/ says what is true: commands exist, links lead somewhere, the settings are current."""

import re
import shlex
from pathlib import Path

import pytest

from flows.cli import parser
from flows.settings_page import page

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
COMMAND = re.compile(r"^ {4,}(finetune|prefect|make|export|docker|systemctl) .*$", re.MULTILINE)
NOT_RUN = "# not run here"
# outside commands that the integration tests run, with other ports and profiles; `make serve` is
# run as the `finetune serve` that it calls
RUN = (
    "export PREFECT_API_URL=http://127.0.0.1:4200/api",
    "make check",
    "make serve",
    "make test",
    "prefect server start --host 127.0.0.1",
    "prefect work-pool create local-gpu --type process",
    "prefect work-pool set-concurrency-limit local-gpu 1",
    "prefect --no-prompt deploy --all",
    "prefect worker start --pool local-gpu",
    "prefect deployment run finetune/local-gpu",
)


def commands():
    for path in PAGES:
        for found in COMMAND.finditer(path.read_text()):
            yield pytest.param(found[0].strip(), id=f"{path.stem}: {found[0].strip()[:60]}")


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_is_understood_or_run_by_a_test_or_said_not_to_be(line):
    words = shlex.split(line, comments=True)
    if words[0] == "finetune":
        parser().parse_args(words[1:])
    elif NOT_RUN not in line:
        assert line.startswith(RUN)


def test_make_targets_of_the_pages_exist():
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = {m for p in PAGES for m in re.findall(r"`?make ([a-z]+)\b", p.read_text())}
    assert named - {"sure"} <= targets


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_to_files_of_the_repository_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_settings_named_in_the_pages_exist(path):
    known = set(re.findall(r"`([a-z_]+)`", page())) | {"max_todos", "path", "hub_id"}
    named = re.findall(
        r"\b(?:base|ingest|filter|prompt|tokenize|train|evaluate|merge|hardware)\.([a-z_]+)\b",
        path.read_text(),
    )
    assert set(named) - known - {"py", "md", "gate", "parquet", "json"} == set()


def test_page_of_settings_is_current():
    told = "run: python -m flows.settings_page"
    assert (REPOSITORY / "docs" / "settings.md").read_text() == page(), told
