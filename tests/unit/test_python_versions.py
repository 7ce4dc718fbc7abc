"""The versions of Python that the package declares."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import REPOSITORY

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
SOURCES = [path for top in ("flows", "tasks") for path in sorted((REPOSITORY / top).rglob("*.py"))]
COMPILE = "import sys; [compile(open(p, 'rb').read(), p, 'exec') for p in sys.argv[1:]]"


def test_the_classifiers_name_every_supported_version():
    prefix = "Programming Language :: Python :: "
    named = [name.removeprefix(prefix) for name in PROJECT["classifiers"] if prefix in name]
    assert tuple(named) == VERSIONS
    assert PROJECT["requires-python"] == f">={VERSIONS[0]}"


def test_the_sources_use_the_syntax_of_the_oldest_version():
    for path in SOURCES:
        ast.parse(path.read_bytes(), str(path), feature_version=(3, 11))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_sources_compile_without_a_warning(version):
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = sys.executable if version == own else shutil.which(f"python{version}")
    env = os.environ | {"PYENV_VERSION": version}  # where the name is that of a version manager
    works = python and subprocess.run([python, "-V"], env=env, capture_output=True, check=False)
    if not works or works.returncode:
        pytest.skip(f"python{version} is not on the PATH")
    command = [python, "-W", "error", "-c", COMPILE, *map(str, SOURCES)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
