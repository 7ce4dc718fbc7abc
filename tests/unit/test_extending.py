"""docs/extending.md, followed literally in a copy of the code base."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.cache.code_digest import closure, code_digest
from tasks.core.cache.digest_cache import DigestCache
from tasks.pipeline import PIPELINE

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/extending.md").read_text()
SECTIONS = {
    title: text
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    if "Check:" in text
}
BLOCK = r"\n\n```python\n(.*?)```"


def blocks(text, introduction):
    return re.findall(introduction + BLOCK, text, re.DOTALL)


def add_to_tuple(path, name, lines):
    """Insert an import before the others and an entry at the end of the tuple `name`."""
    imported, entry = (line for line in lines.splitlines() if line.strip())
    text = path.read_text()
    first = re.search(r"^from tasks\.", text, re.MULTILINE).start()
    text = f"{text[:first]}{imported}\n{text[first:]}"
    opening = re.search(rf"^{name}\b[^=]*= \(", text, re.MULTILINE).end()
    closing = text.index(")", opening)
    last = text[opening:closing].rstrip().removesuffix(",")
    path.write_text(f"{text[:opening]}{last}, {entry}{text[closing:]}")


def add_to_class(path, name, line):
    """Insert a field before the first field of a class."""
    text = path.read_text()
    first = (
        re.compile(r"^    \w+: ", re.MULTILINE).search(text, text.index(f"class {name}(")).start()
    )
    path.write_text(f"{text[:first]}    {line.strip()}\n{text[first:]}")


def follow(text, root):
    for path, content in blocks(text, r"[Cc]reate `([^`]+)`:"):
        (root / path).write_text(content)
    for path, name, lines in blocks(text, r"In `([^`]+)`, add to `([^`]+)`:"):
        add = add_to_tuple if "\n" in lines.strip() else add_to_class
        add(root / path, name, lines)
    for path, old, new in re.findall(r"In `([^`]+)`, replace `(.+?)` by `(.+?)`\.", text):
        content = (root / path).read_text()
        assert old in content
        (root / path).write_text(content.replace(old, new, 1))


def digests(root):
    return {s.name: code_digest(closure(s.run, DigestCache(None), root)) for s in PIPELINE}


@pytest.fixture
def copied(tmp_path):
    for name in ("tasks", "flows"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignored)
    return tmp_path


@pytest.mark.parametrize("title", SECTIONS)
def test_the_example_works_and_changes_the_code_of_the_stages_that_it_names(title, copied):
    text = SECTIONS[title]
    before = digests(copied)
    follow(text, copied)
    (check,) = blocks(text, "Check:")
    environment = os.environ | {"PYTHONPATH": str(copied)}
    run = [sys.executable, "-c", check]
    done = subprocess.run(
        run, cwd=copied, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    after = digests(copied)
    named = re.findall(r"`(\w+)`", re.search(r"Code changes in: ([^.]*)", text).group(1))
    assert [name for name in after if after[name] != before[name]] == named


def test_every_registry_has_an_example():
    registries = sorted(
        p.relative_to(REPOSITORY) for p in (REPOSITORY / "tasks").rglob("registry.py")
    )
    assert [str(path) for path in registries if str(path) not in PAGE] == []
