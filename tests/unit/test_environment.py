"""Packages in the keys: a stage's `env` names every package whose version can change its output.

The third-party imports of a stage's code, found statically as for its code digest, are either in
`env` or listed here with the reason why they cannot change an output.
"""

import ast
import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tasks.core.cache.code_digest import closure
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.languages.registry import PARSERS
from tasks.core.package_version import PYTHON
from tasks.pipeline import PIPELINE

# package -> (stages that import it without naming it in `env`, why its version changes no output)
NOT_IN_ENV = {
    "datasets": ("evaluate", "declares the features of a metric; the counting is our own code"),
    "evaluate": ("evaluate", "base class of a metric; the counting is our own code"),
    "huggingface-hub": ("base", "downloads files of a pinned commit"),
    "jinja2": ("evaluate", "renders the report, which is no output"),
    "matplotlib": ("train", "plots the losses, which is no output"),
    "numpy": ("base", "seeds and compares the random models of the checks"),
    "psutil": ("evaluate merge", "measures free RAM, which is in no key"),
    "pyarrow": ("base train evaluate merge", "reads tables; what these write with it is no output"),
    "pydantic": ("train", "passes the job's fields to a worker process"),
    "tqdm": ("base", "reports the progress of a download"),
    "trackio": ("train", "shows what was measured, which is no output"),
    "xxhash": ("ingest filter prompt tokenize", "XXH3 is a fixed function; it names rows"),
} | dict.fromkeys(
    set(PARSERS) - {PYTHON}, ("ingest", "its version is in the digest of sources that need it")
)
# import name -> package, for what is not installed everywhere (triton: on Linux with CUDA only;
# trackio: an extra)
NOT_INSTALLED = {"triton": "triton", "trackio": "trackio"}
OWN = {"tasks", "flows"}


def imports_of(path: Path) -> Iterator[str]:
    """Top-level names of the third-party modules that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        yield from {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OWN


def packages_of(stage) -> set[str]:
    """Distributions that the code of a stage imports, in lower case with hyphens."""
    installed = metadata.packages_distributions()
    found = set()
    for module in closure(stage.run, DigestCache(None)):
        spec = importlib.util.find_spec(module)
        for name in imports_of(Path(spec.origin)):
            names = installed.get(name) or [NOT_INSTALLED[name]]
            found |= {package.lower().replace("_", "-") for package in names}
    return found


@pytest.mark.parametrize("stage", PIPELINE, ids=lambda stage: stage.name)
def test_every_package_that_a_stage_imports_is_in_its_env_or_has_a_reason_not_to_be(stage):
    excused = {name for name, (stages, _) in NOT_IN_ENV.items() if stage.name in stages.split()}
    named = {package.lower() for package in stage.env}
    assert packages_of(stage) - named == excused


def test_every_package_of_an_env_is_in_the_lock_file_or_installed_with_torch():
    root = Path(__file__).resolve().parents[2]
    files = [root / name for name in ("requirements.lock", "requirements-demo.lock")]
    lines = "\n".join(path.read_text() for path in files).splitlines()
    locked = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    named = {package.lower() for stage in PIPELINE for package in stage.env}
    assert named - locked <= {"triton"}  # CUDA builds of torch pin it


def test_every_package_that_the_project_imports_is_a_dependency_or_belongs_to_an_extra():
    root = Path(__file__).resolve().parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(line for lines in extras for line in lines)]
    declared = {Requirement(line).name for line in wanted}
    declared |= {"starlette", "triton"}  # of fastapi and torch
    installed = metadata.packages_distributions()
    files = [path for top in OWN for path in (root / top).rglob("*.py")]
    names = {name for path in files for name in imports_of(path)}
    packages = {name: installed.get(name, [name]) for name in names}
    missing = {
        name
        for name, found in packages.items()
        if not declared & {package.lower().replace("_", "-") for package in found}
    }
    assert missing == set()
