import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy pipeline on a fresh store; `toy.SOURCE` is its input file."""
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "toy", module)
    spec.loader.exec_module(module)
    module.SOURCE = tmp_path / "words.txt"
    module.SOURCE.write_text("pear fig apple")
    return module


@pytest.fixture
def pipeline(toy, tmp_path):
    return toy.Pipeline(tmp_path / "artifacts")
