import importlib.util
import sys
from pathlib import Path

import pytest


class Messages:
    """A progress sink that collects messages."""

    def __init__(self):
        self.lines = []

    def update(self, *_):
        pass

    def message(self, text):
        self.lines.append(text)


def load_toy(folder, monkeypatch):
    """The module of the toy pipeline; `SOURCE` is its input file, in a folder."""
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "toy", module)
    spec.loader.exec_module(module)
    module.SOURCE = folder / "words.txt"
    module.SOURCE.write_text("pear fig apple")
    return module


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy pipeline on a fresh store; `toy.SOURCE` is its input file."""
    return load_toy(tmp_path, monkeypatch)


@pytest.fixture
def pipeline(toy, tmp_path):
    return toy.Pipeline(tmp_path / "artifacts")
