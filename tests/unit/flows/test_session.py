"""A plan reports what no run could use."""

from pathlib import Path

import pytest

from flows.session import Request, open_session
from tasks.core.cache.decision import Selection
from tasks.core.errors import PipelineError

FUNCTION = 'def f(x):\n    """Add one to the value of an order."""\n    return x + {}\n'


def plan(folder: Path, split: str, until: str = "tokenize") -> None:
    source = f'[{{"kind": "folder", "path": "{folder}"}}]'
    overrides = (f"ingest.sources={source}", f"prompt.split={split}")
    with open_session(Request("cpu_demo", overrides, Selection(until=until))):
        pass


def test_two_files_are_too_little_by_file_and_either_remedy_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    folder = tmp_path / "code"
    folder.mkdir()
    for number in range(2):
        (folder / f"m{number}.py").write_text(FUNCTION.format(number))
    with pytest.raises(PipelineError) as caught:
        plan(folder, "file")
    assert "too little data: 2 files of code" in str(caught.value)
    assert "prompt.split to auto" in str(caught.value)
    plan(folder, "auto")
    plan(folder, "file", until="filter")
    (folder / "m2.py").write_text(FUNCTION.format(2))
    plan(folder, "file")
