import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.cache.digest_cache import sha256
from tasks.core.errors import PipelineError
from tasks.core.languages.registry import language_of
from tasks.core.settings.config import View, check
from tasks.ingestion.sources.digests import source_digests
from tasks.ingestion.sources.git import plumbing
from tasks.ingestion.sources.git.commit_rules import clean_subject, edit_problem, subject_problem

FUNCTION = 'def f{n}(x):\n    """Say the value of x."""\n    return x + {n}\n'
LONG = "".join(f"value_{n} = {n}\n" for n in range(30))


class Repository:
    """A git repository in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str, at: str = "") -> str:
        who = {f"GIT_{r}_{f}": "x@y" for r in ("AUTHOR", "COMMITTER") for f in ("NAME", "EMAIL")}
        who |= {"GIT_COMMITTER_DATE": at} if at else {}
        return subprocess.run(
            ["git", "-C", str(self.folder), *words],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | who | {"GIT_CONFIG_GLOBAL": os.devnull},
        ).stdout.strip()

    def commit(self, subject: str, at: str = "", **files: str) -> str:
        for name, text in files.items():
            path = self.folder / name.replace("__", "/").replace("_py", ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", subject, at=at)
        return self.git("rev-parse", "HEAD")

    def source(self, **fields) -> dict:
        return {"kind": "git", "path": str(self.folder), "name": "r", **fields}


@pytest.fixture
def repository(tmp_path) -> Repository:
    return Repository(tmp_path / "repository")


def digest(given: dict) -> str:
    config = check({"ingest": {"sources": [given]}})
    return source_digests(View(config, ("ingest",), "ingest"), sha256)["r"]


def test_functions_are_those_of_the_commit_not_of_the_working_tree(ingest, repository) -> None:
    first = repository.commit("one", a_py=FUNCTION.format(n=1))
    repository.commit("two", a_py=FUNCTION.format(n=2))
    (repository.folder / "a.py").write_text(FUNCTION.format(n=3))
    _, rows, _ = ingest(repository.source(revision=first))
    assert [r["output"].splitlines()[0] for r in rows] == ["def f1(x):"]
    assert rows[0]["version"] == first and rows[0]["path"] == "a.py"


def test_rows_of_a_repository_are_those_of_its_folder(ingest, repository) -> None:
    repository.commit(
        "one",
        LICENSE="Apache License\nVersion 2.0",
        p__a_py=FUNCTION.format(n=1),
        p__test_b_py=FUNCTION.format(n=2),
        q_py=FUNCTION.format(n=3),
    )
    (repository.folder / "link.py").symlink_to("q.py")
    repository.commit("two")
    (repository.folder / "link.py").unlink()
    _, from_git, _ = ingest(repository.source())
    _, from_folder, _ = ingest({"kind": "folder", "path": str(repository.folder), "name": "r"})
    for row in (*from_git, *from_folder):
        del row["version"], row["date"]
    assert from_git == from_folder and len(from_git) == 2
    assert {r["licence"] for r in from_git} == {"Apache-2.0"}


def test_a_bare_repository_is_read(ingest, repository, tmp_path) -> None:
    repository.commit("one", a_py=FUNCTION.format(n=1))
    repository.git("clone", "-q", "--bare", str(repository.folder), str(tmp_path / "bare.git"))
    _, rows, _ = ingest({"kind": "git", "path": str(tmp_path / "bare.git")})
    assert len(rows) == 1 and rows[0]["source"] == "bare"


def test_a_branch_is_keyed_by_the_commit_it_names_now(repository) -> None:
    first = repository.commit("one", a_py=FUNCTION.format(n=1))
    assert digest(repository.source(revision="main")) == first
    (repository.folder / "a.py").write_text("x = 1\n")
    assert digest(repository.source(revision="main")) == first
    second = repository.commit("two")
    assert digest(repository.source(revision="main")) == second
    assert digest(repository.source(revision=first[:10])) == first


def test_a_shallow_clone_that_is_deepened_has_another_key(repository, tmp_path) -> None:
    """Dates and edits come from the history."""
    for number in range(3):
        commit = repository.commit(f"commit {number}", a_py=FUNCTION.format(n=number))
    clone = tmp_path / "clone"
    repository.git("clone", "-q", "--depth=1", f"file://{repository.folder}", str(clone))
    keys = [digest(repository.source(path=str(clone)))]
    for how in ("--depth=2", "--unshallow"):
        repository.git("-C", str(clone), "fetch", "-q", how)
        keys.append(digest(repository.source(path=str(clone))))
    assert len({*keys}) == 3 and all(key.startswith(commit) for key in keys)
    assert keys[-1] == commit == digest(repository.source())


@pytest.mark.parametrize("kind", ["grafts", "replace"])
def test_rewritten_history_of_a_commit_changes_no_row(ingest, repository, kind) -> None:
    first = repository.commit("one", at="2020-01-01T00:00:00Z", a_py=FUNCTION.format(n=1))
    commit = repository.commit("two", at="2021-01-01T00:00:00Z", b_py=FUNCTION.format(n=2))
    _, before, _ = ingest(repository.source())
    if kind == "grafts":
        (repository.folder / ".git/info").mkdir(exist_ok=True)
        (repository.folder / ".git/info/grafts").write_text(f"{commit}\n")
    else:
        repository.git("replace", commit, first)
    _, after, _ = ingest(repository.source())
    assert after == before


NAMES = """
from pathlib import Path
from tasks.core.system.escape_text import printable
from tasks.ingestion.sources.git import plumbing
folder, commit = plumbing.resolve({path!r}, "HEAD")
paths = [blob.path for blob in plumbing.files(folder, commit)[0]]
paths += plumbing.dates(folder, commit)[0]
paths += sorted(path.name for path in Path({path!r}).glob("*.py"))
print(ascii([printable(path) for path in paths]))
"""


def test_file_names_are_the_same_in_every_locale(repository) -> None:
    repository.commit("one", **{"n\u00e9e_py": FUNCTION.format(n=1)})
    read = [
        subprocess.run(
            [sys.executable, "-c", NAMES.format(path=str(repository.folder))],
            env=os.environ | {"LC_ALL": locale, "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0"},
            cwd=Path(__file__).parents[4],
            capture_output=True,
            check=True,
        ).stdout.strip()
        for locale, utf8 in (("C.UTF-8", "1"), ("C", "0"))
    ]
    assert read[0] == read[1] == ascii(["n\u00e9e.py"] * 3).encode()


def test_one_file_commits_become_edits_of_the_file_before_and_after(ingest, repository) -> None:
    repository.commit("Start it", a_py=LONG)
    commit = repository.commit("Add one more value to it", a_py=LONG + "last = 1\n")
    _, rows, _ = ingest(repository.source(rows=["commits"]))
    assert [(r["instruction"], r["input"], r["output"], r["kind"]) for r in rows] == [
        ("Add one more value to it", LONG, LONG + "last = 1\n", "edit")
    ]
    assert rows[0]["version"] == commit and rows[0]["project"] == "r/"


@pytest.mark.parametrize(
    ("name", "language", "line", "last"),
    [
        ("a.rs", "rust", "pub fn f{n}(x: i64) -> i64 {{ x + {n} }}\n", "pub fn g() {}\n"),
        ("a.kt", "kotlin", "fun f{n}(x: Int): Int {{ return x + {n} }}\n", "fun g() {}\n"),
        ("a.scala", "scala", "def f{n}(x: Int): Int = {{ x + {n} }}\n", "def g() = {}\n"),
        ("a.tsx", "tsx", "const f{n} = (x: T) => <b>{{x}}</b>;\n", "const g = <b/>;\n"),
        ("a.go", "go", "func f{n}(x int) int {{ return x + {n} }}\n", "func g() {}\n"),
    ],
)
def test_commits_become_edits_in_other_languages(
    ingest, repository, name, language, line, last
) -> None:
    head = "package p\n\n" if language == "go" else ""
    before = head + "".join(line.format(n=n) for n in range(8))
    repository.commit("Start it", **{name: before})
    repository.commit("Break the syntax of the file", **{name: before + "} {(\n"})
    repository.commit("Make the file right again now", **{name: before})
    repository.commit("Add one more function to it", **{name: before + last})
    summary, rows, _ = ingest(repository.source(rows=["commits"]))
    edits = [(r["instruction"], r["language"]) for r in rows]
    expected = ["Make the file right again now", "Add one more function to it"]
    assert edits == [(subject, language) for subject in expected]
    assert (rows[-1]["input"], rows[-1]["output"]) == (before, before + last)
    assert sum(n for reason, n in summary.counts.items() if "no valid" in reason) == 1


def test_commits_that_teach_no_edit_are_counted_by_reason(ingest, repository) -> None:
    repository.commit("Start", a_py=LONG, b_py=LONG, short_py="x = 1\n", LICENSE="MIT")
    repository.commit("Change both of the files together", a_py=LONG + "y=1", b_py=LONG + "y=1")
    repository.commit("Rename nothing and add a file", c_py=LONG)
    repository.commit("Change the licence of all this", LICENSE="BSD")
    repository.commit("update", a_py=LONG)
    repository.commit("Change the value of a variable", short_py="x = 2\n")
    repository.commit("Break the syntax of the file", a_py=LONG + "def (:\n")
    repository.commit("Make the file right again now", a_py=LONG + "z = 1\n")
    summary, rows, _ = ingest(repository.source(rows=["commits"]))
    assert [r["instruction"] for r in rows] == ["Make the file right again now"]
    counts = {k: n for k, n in summary.counts.items() if k.startswith("commits")}
    assert counts == {
        "commits: subject too short or too long": 1,
        "commits: edit of a short file": 1,
        "commits: edit that leaves no valid Python": 1,
    }


def test_an_edit_of_a_generated_file_is_none(ingest, repository) -> None:
    repository.commit("Start it", a_py="# @generated\n" + LONG)
    repository.commit("Add one more value to it", a_py="# @generated\n" + LONG + "last = 1\n")
    repository.commit("Start another file that counts", b_py=LONG)
    repository.commit("Add one more value to this", b_py=LONG + "last = 1\n")
    summary, rows, _ = ingest(repository.source(rows=["commits"]))
    assert [row["path"] for row in rows] == ["b.py"]
    assert summary.counts["commits: generated files"] == 1


def test_submodules_are_counted_and_named(ingest, repository, tmp_path) -> None:
    inner = Repository(tmp_path / "inner")
    inner.commit("Start", f_py=FUNCTION.format(n=1))
    repository.commit("Start", a_py=FUNCTION.format(n=2))
    local = ("-c", "protocol.file.allow=always")
    repository.git(*local, "submodule", "add", "-q", str(inner.folder), "ext/inner")
    repository.commit("Add a submodule")
    summary, rows, _ = ingest(repository.source())
    assert len(rows) == 1 and summary.counts["submodules"] == 1


def test_merges_are_no_edits(ingest, repository) -> None:
    repository.commit("Start", a_py=LONG)
    repository.git("checkout", "-q", "-b", "side")
    repository.commit("Add a line at the end", a_py=LONG + "e = 1\n")
    repository.git("checkout", "-q", "main")
    repository.commit("Start b", b_py=LONG)
    repository.git("merge", "-q", "--no-ff", "-m", "Add all of the other branch", "side")
    _, rows, _ = ingest(repository.source(rows=["commits"]))
    assert [r["instruction"] for r in rows] == ["Add a line at the end"]


@pytest.mark.parametrize(
    ("subject", "problem"),
    [
        ("Add support for odd file names", ""),
        ("[ci skip] Fix the reading of empty files", ""),
        ("Fix all of it", "subject of few words"),
        ("Fix it up", "subject too short or too long"),
        ("Added support for odd file names", "subject not imperative"),
        ("Bump the version of the library", "subject with version bump"),
        ("Merge pull request 3 from x/y", "subject with merge"),
        ("Add the new thing, still WIP here", "subject with work in progress"),
        ("Fix what https://example.org/page tells us", "subject with link"),
        ("Fix the crash of issue 159 here", "subject with ticket"),
        ("Fix the crash told in #159 here", "subject with ticket"),
        ("Fix the bug that I made yesterday", "subject with person"),
        ("Add debugging to the wiping of files", ""),
    ],
)
def test_the_rules_of_subjects(subject, problem) -> None:
    assert subject_problem(clean_subject(subject)) == problem


def test_an_edit_of_blanks_is_none() -> None:
    python, spaced = language_of("a.py"), LONG.replace("\n", "\n\n")
    assert edit_problem(LONG, spaced, 1, 999, python) == "edit of blanks only"
    assert edit_problem(LONG, LONG + "x = 1", 1, 80, python) == "edit of a long file"


def test_a_huge_file_of_a_commit_is_one_ledger_entry(ingest, repository, monkeypatch) -> None:
    monkeypatch.setattr("tasks.ingestion.code_file.MAX_FILE_BYTES", 1000)
    monkeypatch.setattr("tasks.ingestion.sources.git.repository.MAX_FILE_BYTES", 1000)
    repository.commit("one", a_py=FUNCTION.format(n=1), b_py="#" * 2000)
    _, rows, bad = ingest(repository.source())
    assert len(rows) == 1
    assert [(b["path"], b["problem"]) for b in bad] == [
        ("b.py", "has 2,000 bytes, at most 1,000 are read")
    ]


def test_an_unknown_revision_names_branches(repository) -> None:
    repository.commit("one")
    with pytest.raises(PipelineError, match="no commit 'dev'") as error:
        digest(repository.source(revision="dev"))
    assert "main" in error.value.remedy


def test_a_repository_of_another_user_names_the_command_that_trusts_it(
    repository, tmp_path, monkeypatch
) -> None:
    repository.commit("one")
    monkeypatch.setenv("HOME", str(tmp_path))
    other = plumbing._environment() | {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    monkeypatch.setattr(plumbing, "_environment", lambda: other)
    with pytest.raises(PipelineError, match="dubious ownership") as error:
        digest(repository.source())
    command = error.value.remedy.partition("`")[2].rpartition("`")[0]
    subprocess.run(command.split(), check=True)
    assert len(digest(repository.source())) == 40


def test_a_revision_is_never_an_option_of_git(repository) -> None:
    repository.commit("one")
    with pytest.raises(PipelineError, match="no commit '--all'"):
        digest(repository.source(revision="--all"))


def test_a_folder_that_is_no_repository_is_refused(tmp_path) -> None:
    with pytest.raises(PipelineError, match="not a git repository"):
        digest({"kind": "git", "path": str(tmp_path), "name": "r"})


def test_resolving_a_revision_imports_nothing_heavy() -> None:
    code = (
        "import sys, tasks.ingestion.sources.digests\n"
        "print([m for m in ('pyarrow', 'numpy', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_weight_keeps_an_even_share_that_grows_with_it(ingest, tmp_path, write_jsonl, row) -> None:
    write_jsonl(tmp_path / "a.jsonl", *(row(n) for n in range(400)))
    given = {"kind": "files", "path": str(tmp_path)}
    kept = []
    for weight in (0.25, 0.5):
        summary, rows, _ = ingest({**given, "weight": weight})
        assert summary.counts["rows over weight"] == 400 - len(rows)
        kept.append({r["row_id"] for r in rows})
    assert 60 < len(kept[0]) < 140 and kept[0] < kept[1] and 150 < len(kept[1]) < 250


def test_rows_are_dated_by_the_last_commit_that_changed_their_file(ingest, repository) -> None:
    times = ("2026-01-01T12:00:00Z", "2026-02-01T12:00:00Z")
    repository.commit("one", at=times[0], a_py=FUNCTION.format(n=1), b_py=FUNCTION.format(n=2))
    repository.commit("two", at=times[1], b_py=FUNCTION.format(n=3))
    _, rows, _ = ingest(repository.source())
    assert [(r["path"], r["date"]) for r in rows] == [("a.py", times[0]), ("b.py", times[1])]


@pytest.mark.timeout(60)
def test_git_that_writes_much_on_both_pipes_is_read_to_its_end(repository, tmp_path, monkeypatch):
    repository.commit("Add f", a_py=FUNCTION.format(n=1))
    real = shutil.which("git")
    (tmp_path / "git").write_text(
        f'#!/bin/sh\nhead -c 300000 /dev/zero >&2\nexec {real} "$@"\n'  # pipes hold 64 KiB
    )
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    commit = plumbing._git(repository.folder, "rev-parse", "HEAD").strip()
    with plumbing.objects(repository.folder) as objects:
        assert objects is not None
    assert len(commit) == 40
