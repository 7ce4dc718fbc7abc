"""The documentation is correct: commands, links, files and settings that it names exist."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from flows.cli import COMMANDS, finetune
from flows.settings_reference import page

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
ALL_PAGES = [
    REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")
] + PAGES
PROGRAMS = (
    "ollama finetune prefect make export docker systemctl loginctl mkdir cp python pip hf git sudo"
)
NOT_RUN = "# not run here"
OPERATIONS = "integration/test_operations.py::test_make_serve_runs_cancels_stops_and_goes_on"
DEPLOYMENT = "integration/test_deployment.py::deployed"
ELSEWHERE = "integration/test_deployment.py::test_pools_elsewhere_are_made_and_deployed_to"
NIGHTLY = "integration/test_nightly.py::test_nightly_promotes_has_nothing_to_do_goes_on"
# beginning of a command of another program -> the test that runs it (with its own ports, profiles
# and stages), or who does
RUN = {
    "export PREFECT_API_URL=http://127.0.0.1:4200/api": DEPLOYMENT,
    "make serve": OPERATIONS,
    "make setup": "every make command",
    "make demo": "manually, before a release",
    "make check": "make test",
    "make test": "manually, before every change",
    "make format": "manually, before every change",
    "export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1": DEPLOYMENT,
    "prefect --no-prompt server start": "integration/test_operations.py::test_the_server_of_the",
    "prefect work-pool create local-gpu --type process": DEPLOYMENT,
    "prefect work-pool set-concurrency-limit local-gpu 1": DEPLOYMENT,
    "prefect work-pool create docker-gpu": ELSEWHERE,
    "prefect work-pool set-concurrency-limit docker-gpu 1": ELSEWHERE,
    "prefect work-pool create kubernetes-gpu": ELSEWHERE,
    "prefect work-pool set-concurrency-limit kubernetes-gpu 1": ELSEWHERE,
    "prefect deploy --all": DEPLOYMENT,
    "prefect --no-prompt deploy --all": DEPLOYMENT,
    "prefect worker start --pool local-gpu": DEPLOYMENT,
    "prefect deployment run finetune/local-gpu -p only": NIGHTLY,
    "prefect deployment run finetune/local-gpu": DEPLOYMENT,
    "python deploy/notify.py": "integration/test_notifications.py::test_a_failed_run_is_told",
}


def commands_of(programs):
    """(page, line) of every command of the pages, in code blocks of four spaces or more."""
    for path in ALL_PAGES:
        for line in path.read_text().splitlines():
            text = line.strip().removeprefix("$ ")
            if line.startswith("    ") and text.partition(" ")[0] in programs:
                yield path, text


def commands():
    for path, line in commands_of(PROGRAMS.split()):
        yield pytest.param(line, id=f"{path.stem}: {line[:60]}")


def parse(words):
    """Parse the arguments of a `finetune` command without running it; a mistake raises."""
    _, command, rest = finetune.resolve_command(click.Context(finetune), words)
    command.make_context(words[0], rest)


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_parses_or_is_run_by_a_test_or_marked_as_not_run(line):
    words = shlex.split(line, comments=True)
    if words[0] == "finetune":  # integration/test_documented_commands.py runs them
        parse(words[1:])
    elif NOT_RUN not in line:
        assert line.startswith(tuple(RUN))


@pytest.mark.parametrize("runner", sorted({name for name in RUN.values() if "::" in name}))
def test_the_test_that_runs_a_command_exists(runner):
    file, _, name = runner.partition("::")
    assert f"def {name}" in (REPOSITORY / "tests" / file).read_text()


def test_no_commands_are_in_fenced_blocks_which_these_tests_skip():
    for path in ALL_PAGES:
        fences = re.findall(r"^ *```(\w*)", path.read_text(), re.MULTILINE)[::2]
        assert set(fences) <= {"yaml", "json", "python", "toml"}, path


def test_commands_named_in_running_text_exist():
    for path in ALL_PAGES:
        named = set(re.findall(r"`finetune ([a-z]+)", path.read_text()))
        assert named <= set(COMMANDS), path


def test_make_targets_of_the_pages_exist():
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = {m for p in PAGES for m in re.findall(r"`?make ([a-z]+)\b", p.read_text())}
    assert named - {"sure"} <= targets


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_linked_files_of_the_repository_exist(path):
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


def test_the_settings_page_is_current():
    remedy = "run: python -m flows.settings_reference"
    assert (REPOSITORY / "docs" / "settings.md").read_text() == page(), remedy


def test_tests_and_code_that_the_pages_name_exist():
    # docs/extending.md names files that its reader is about to write; test_extending.py writes them
    pages = [path for path in ALL_PAGES if path.name != "extending.md"]
    text = "\n".join(path.read_text() for path in pages)
    named = set(re.findall(r"`((?:tasks|flows|tests)/[\w/]+\.py)(?:::(\w+))?`", text))
    assert len(named) > 30
    for file, name in named:
        code = (REPOSITORY / file).read_text()
        assert not name or re.search(rf"^(def|class) {name}\b", code, re.MULTILINE), name


def test_files_that_the_image_copies_exist_and_are_not_ignored():
    kept = (REPOSITORY / ".dockerignore").read_text().split()
    for line in (REPOSITORY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            names = line.split()[1:-1]
            assert all((REPOSITORY / name).exists() for name in names), line
            assert all(f"!{name}" in kept for name in names), line


def test_the_image_has_the_locked_packages_the_entry_point_and_a_supported_python():
    lines = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    of = lambda word: [rest for first, rest in steps if first == word]  # noqa: E731
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (version,) = re.findall(r"^python:(3\.\d+)-slim", of("FROM")[0])
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]
    # the same commands as `make setup`, of files that are copied before
    installs = [
        found.split(" -r ")[-1].strip()
        for run in of("RUN")
        for found in re.findall(r"pip install [^&]+", run)
    ]
    make = (REPOSITORY / "Makefile").read_text()
    assert installs[:2] == re.findall(r"pip install --quiet .*-r (\S+\.lock)", make)
    assert installs[2].endswith("--no-deps -e .")
    copied = set(" ".join(of("COPY")).split())
    assert {*installs[:2], "pyproject.toml", "prefect.yaml", "flows", "tasks"} <= copied
    assert project["readme"] in copied and set(project["license-files"]) <= copied
    # what it runs is the command of the package, in the folder that the pages name
    assert json.loads(of("CMD")[0])[0] in project["scripts"]
    (home,) = re.findall(r"FINETUNE_HOME=(\S+)", of("ENV")[0])
    assert of("VOLUME") == [home]
    page = (REPOSITORY / "docs" / "operations.md").read_text()
    assert f":{home}" in page and f"at `{home}`" in page
    # the sandbox and the sources of kind git need these
    assert {"bubblewrap", "git"} <= set(of("RUN")[0].split())


def test_units_call_commands_that_exist():
    called = [
        found.split()
        for path in (REPOSITORY / "deploy").glob("*.service")
        for found in re.findall(r"/\.venv/bin/finetune ([^\n\']+)", path.read_text())
    ]
    assert len(called) == 2
    for words in called:
        parse(words)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_understands_the_units(tmp_path):
    units = sorted(map(str, (REPOSITORY / "deploy").glob("*.service")))
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *units],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Failed to initialize manager" in done.stderr:
        pytest.skip("systemd-analyze does not start here")
    errors = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert errors == []


def test_every_subject_has_its_page_and_the_readme_links_to_them():
    subjects = "your-data your-model settings caching memory evaluation operations extending recipe"
    names = {path.stem for path in PAGES}
    assert {*subjects.split(), "troubleshooting"} <= names
    assert "(docs/README.md)" in (REPOSITORY / "README.md").read_text()


def test_percentages_are_written_with_a_space():
    """In the pages, and in what code formats; widths of HTML elements and of flags stay as CSS
    and shells write them."""
    places = [*ALL_PAGES, REPOSITORY / "benchmarks/README.md"]
    places += [path for top in ("flows", "tasks") for path in (REPOSITORY / top).rglob("*.py")]
    written = re.compile(r"[\w})]:[+<>,.\d]*\d%\}|\s[\d.,]+%[ ,;.)|]")
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in places
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if written.search(line)
    ]
    assert found == []
