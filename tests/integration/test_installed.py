"""A wheel of the project works outside of a checkout: from site-packages, in an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, write_small_profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DATA_STAGES = ("base", "ingest", "filter", "prompt", "tokenize")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="builds the wheel: pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-index"]
    command = [sys.executable, "-m", "pip", "wheel", "-q", *options, "-w", str(folder)]
    subprocess.run([*command, str(REPOSITORY)], check=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def finetune(wheel, tmp_path_factory):
    """Runs the installed command in an empty folder; returns (exit code, output)."""
    target, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, str(wheel)], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "FINETUNE_HOME"}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, str(target / "bin" / "finetune"), *arguments],
            env={**environment, "PYTHONPATH": str(target)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    run.folder = folder
    return run


def test_the_wheel_contains_every_file_of_the_packages_and_the_deployments(wheel):
    listed = subprocess.run(
        ["git", "ls-files", "flows", "tasks"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    if not listed:
        pytest.skip("no git repository")
    expected = {*(name for name in listed if (REPOSITORY / name).exists()), "flows/prefect.yaml"}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert expected - names == set()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        "flows",
        "tasks",
    }


def test_the_data_stages_run_in_an_empty_folder(finetune, tiny_model):
    profile = write_small_profile(finetune.folder / "small.yaml", tiny_model)
    shutil.copytree(REPOSITORY / "data" / "sample", finetune.folder / "sample")
    text = profile.read_text().replace(str(REPOSITORY / "data" / "sample"), "sample")
    profile.write_text(text)
    code, output = finetune("profiles")
    assert (code, "cpu_demo" in output) == (0, True), output
    code, output = finetune("plan", "--profile", "small.yaml")
    assert (code, "8 of 8 stages to run" in output) == (10, True), output
    only = [word for stage in DATA_STAGES for word in ("--only", stage)]
    code, output = finetune("run", "--profile", "small.yaml", *only)
    assert code == 0, output
    made = {path.name for path in (finetune.folder / "artifacts").iterdir()}
    assert set(DATA_STAGES) <= made
    code, output = finetune("plan", "--profile", "small.yaml", *only)
    assert code == 0 and output.count("HIT") == len(DATA_STAGES), output
