"""The examples of docs/gallery.md, command by command, on the tiny model."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from flows.cli import main
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PAGE = (REPOSITORY / "docs/gallery.md").read_text()
EXAMPLES = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
ELSEWHERE = ("serve",)  # test_operations
# what else than 0 a command may end with: work to do; a tiny model is refused by the gate
CODES = {"plan": {10}, "promote": {2}}
FUNCTION = '''
def {noun}_{name}(values, scale=1.0):
    """Return the {name} of every {noun} entry, scaled by the given factor.

    An empty {noun} gives zero.
    """
    scaled = [value * scale for value in values]
    return {name}(scaled) if scaled else 0
'''
CHAT = ("Write a function that counts {noun}s.", "def count_{noun}s(x):\n    return len(x)")
NOUNS = ("order", "invoice", "basket", "parcel", "ticket", "ledger", "voucher", "shelf", "route")
# the written profile, with less of everything
SMALLER = {
    "tokenize": {"max_tokens": 512, "window_tokens": 512, "min_characters_per_token": 0},
    "train": {"max_steps": 4, "warmup_steps": 1, "batch_tokens": 512},
    "evaluate": {
        "humaneval_problems": 0,
        "probe_problems": 2,
        "samples": 1,
        "max_new_tokens": 8,
        "completion_spans": 0,
    },
    "prompt": {"validation_share": 0.2, "test_share": 0.2},
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small repository and a file of chats, which is the working folder."""
    folder = tmp_path / "shop"
    for noun in NOUNS:
        text = "".join(FUNCTION.format(noun=noun, name=name) for name in ("sum", "max", "min"))
        path = folder / "src" / f"{noun}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    chats = [[part.format(noun=noun) for part in CHAT] for noun in NOUNS]
    rows = (
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in chats
    )
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    return folder


def make_smaller(profile: Path) -> None:
    written = yaml.safe_load(profile.read_text())
    for section, fields in SMALLER.items():
        written[section] = written.get(section, {}) | fields
    written["train"].pop("epochs", None)
    profile.write_text(yaml.safe_dump(written))


@pytest.mark.parametrize("title", EXAMPLES)
def test_every_command_of_an_example_works_after_those_before_it(
    title, prefect_server, tiny_model, shop, capsys
):
    lines = [line.strip() for line in EXAMPLES[title].splitlines() if line.startswith("    ")]
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    assert len(commands) >= 5
    for words in commands:
        if words[0] in ELSEWHERE:
            continue
        more = ["--base", str(tiny_model)] if words[0] == "init" else []
        more += ["--max-new-tokens", "4"] if words[0] == "try" else []
        code = main([*words, *more])
        assert code in {0} | CODES.get(words[0], set()), (words, capsys.readouterr().err)
        if words[0] == "init":
            make_smaller(shop / "finetune.yaml")
