"""The semi-public format that the bridge relies on, in the lowest and the newest Prefect that
installs: each in an environment of its own, with the bounds that pyproject.toml sets."""

import os
import subprocess
import sys
import tomllib

import pytest

from tests.integration.servers import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]
LOWEST = "3.8.0"  # the server of 3.7.0 answers 500 beside the fastapi that this project needs
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
OURS = ("fastapi", "pydantic", "pyyaml", "sqlalchemy")
BOUNDS = [d for d in PROJECT["dependencies"] if d.startswith(OURS)]


@pytest.mark.parametrize("prefect", [f"prefect=={LOWEST}", "prefect>=3.8.8,<4"])
def test_bridge_keeps_its_contract_with(prefect, tmp_path):
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    wanted = [prefect, *BOUNDS, "pytest", "pytest-timeout"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    test = ["-m", "pytest", "-p", "no:cacheprovider", "tests/integration/test_stage_task.py"]
    done = subprocess.run(
        [python, "-W", "ignore", *test],
        cwd=REPOSITORY,
        env=os.environ | {"PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
