"""A git repository read through git's plumbing: commits, trees and files as they were committed.

The working tree is never read, nothing is checked out, and no hook, filter or text conversion of
the repository runs. Standard library only, because `finetune plan` resolves revisions with it.
"""

import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple

from tasks.core.errors import PipelineError
from tasks.ingestion.sources.file_listing import existing_folder

READ_BYTES = 1 << 20
_COMMIT_MARK = "\x01"  # before each commit in the output of git log; no path begins with it
COMMITS_PER_CALL = 1000  # bounds the output that is in memory at once
DAMAGED = "Check it with `git fsck`, or point `path` to a full clone."
REGULAR_FILES = {b"100644", b"100755"}  # not links
SUBMODULE = b"160000"


class Blob(NamedTuple):
    """A file of a tree."""

    path: str
    object_id: str


class Change(NamedTuple):
    """A commit that changes the content of exactly one file and nothing else.

    Attributes:
        commit: Its id.
        subject: First paragraph of its message, on one line.
        path: The file.
        before: Object id of the file's content before.
        after: Object id of the file's content after.
    """

    commit: str
    subject: str
    path: str
    before: str
    after: str


def resolve(path: str, revision: str) -> tuple[Path, str]:
    """The folder of a repository and the id of the commit that a revision names at present.

    Raises:
        PipelineError: No git, no repository, or no such revision.
    """
    folder = existing_folder(path, "a git repository")
    _git(folder, "rev-parse", "--git-dir")
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    found = _run(folder, words)
    if found.returncode:
        if not _run(folder, (*words[:-1], revision)).returncode:
            raise PipelineError(
                f"git can't read commit {revision!r} of the repository at {folder}", DAMAGED
            )
        branches = _git(folder, "for-each-ref", "--format=%(refname:short)", "--count=8")
        names = b", ".join(branches.split()).decode("utf-8", "replace")
        remedy = f"Set `revision` to a commit, tag or branch, such as: {names}."
        if not names:
            remedy = "Commit its files, or read them as they are with `kind: folder`."
        raise PipelineError(f"git repository {path!r} has no commit {revision!r}", remedy)
    return folder, found.stdout.decode().strip()


def identity(folder: Path, commit: str) -> str:
    """What decides the rows of a commit: the commit, and in a shallow clone where its history ends,
    because dates and edits come from the history."""
    shallow = folder / _name(_git(folder, "rev-parse", "--git-path", "shallow").rstrip(b"\n"))
    try:
        ends = sorted(shallow.read_bytes().split())
    except FileNotFoundError:
        return commit
    digest = hashlib.sha256(b"\n".join(ends)).hexdigest()[:12]
    return f"{commit} (shallow clone, {digest})" if ends else commit


def files(folder: Path, commit: str) -> tuple[list[Blob], list[str]]:
    """Regular files of a commit's tree in the order of their paths; and its submodules, whose files
    are in other repositories."""
    found, submodules = [], []
    for entry in _split(_git(folder, "ls-tree", "-r", "-z", "--full-tree", commit), b"\0"):
        about, _, path = entry.partition(b"\t")
        mode, _, object_id = about.split(b" ")
        if mode in REGULAR_FILES:
            found.append(Blob(_name(path), object_id.decode()))
        elif mode == SUBMODULE:
            submodules.append(_name(path))
    return sorted(found, key=lambda blob: blob.path), submodules


def dates(folder: Path, commit: str) -> tuple[dict[str, str], dict[str, str]]:
    """{path: time of the last commit that changed it} and {commit: its time}, of a commit's
    history, as ISO 8601 in UTC."""
    words = ("log", "-z", "--no-renames", "--name-only", f"--format={_COMMIT_MARK}%H %ct", commit)
    changed: dict[str, str] = {}
    committed: dict[str, str] = {}
    time = ""
    for record in _git(folder, *words).split(b"\0"):
        name = _name(record.lstrip(b"\n"))
        if name.startswith(_COMMIT_MARK):
            commit, _, seconds = name.removeprefix(_COMMIT_MARK).partition(" ")
            time = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            committed[commit] = time
        elif name:
            changed.setdefault(name, time)  # the newest commits come first
    return changed, committed


def changes(folder: Path, commit: str) -> Iterator[Change]:
    """Commits without merges that modify one regular file and nothing else, the oldest first."""
    order = ("--no-merges", "--reverse", "--topo-order")
    commits = _split(_git(folder, "rev-list", *order, commit), b"\n")
    words = ("diff-tree", "--stdin", "-r", "-z", "--raw", "--no-renames", "--encoding=UTF-8")
    for first in range(0, len(commits), COMMITS_PER_CALL):
        given = b"".join(commit + b"\n" for commit in commits[first : first + COMMITS_PER_CALL])
        listed = _git(folder, *words, "--format=%H%x00%s", given=given)
        yield from _single_changes(_split(listed, b"\0"))


def _single_changes(records: list[bytes]) -> Iterator[Change]:
    """Changes of one file each, from the output of diff-tree: for each commit its id and subject,
    then for each file its modes, object ids and status, and its path."""
    current, subject = "", ""
    changed: list[Change | None] = []  # files of the current commit; None: not an edit
    pairs = iter(records)
    for record, following in zip(pairs, pairs, strict=True):
        entry = record.lstrip(b"\n")
        if entry.startswith(b":"):
            before_mode, after_mode, before, after, status = entry[1:].split()
            is_edit = status == b"M" and {before_mode, after_mode} <= REGULAR_FILES
            path = _name(following)
            change = Change(current, subject, path, before.decode(), after.decode())
            changed.append(change if is_edit else None)
            continue
        if len(changed) == 1 and changed[0]:
            yield changed[0]
        current, subject, changed = record.decode(), following.decode("utf-8", "replace"), []
    if len(changed) == 1 and changed[0]:
        yield changed[0]


class Objects:
    """Contents of objects, by one `git cat-file --batch`."""

    def __init__(self, to_git: IO[bytes], from_git: IO[bytes]) -> None:
        self._to_git, self._from_git = to_git, from_git

    def read(self, object_id: str, max_bytes: int) -> bytes | int | None:
        """The content; its size where that is over `max_bytes`; None where it is missing."""
        self._to_git.write(f"{object_id}\n".encode())
        self._to_git.flush()
        about = self._from_git.readline().decode().split()
        if len(about) != 3:
            return None
        size = int(about[2])
        if size <= max_bytes:
            return self._from_git.read(size + 1)[:size]
        left = size + 1
        while left:
            left -= len(self._from_git.read(min(left, READ_BYTES)))
        return size


@contextmanager
def objects(folder: Path) -> Iterator[Objects]:
    """Open a repository's objects for reading."""
    process = subprocess.Popen(
        _command(folder, ("cat-file", "--batch")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    )
    assert process.stdin and process.stdout
    try:
        yield Objects(process.stdin, process.stdout)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def _name(path: bytes) -> str:
    """A path as text, the same in every locale."""
    return path.decode("utf-8", "surrogateescape")


def _split(output: bytes, end: bytes) -> list[bytes]:
    """Records of an output, each of which is terminated by `end`."""
    return output.split(end)[:-1]


def _git(folder: Path, *words: str, given: bytes = b"") -> bytes:
    """The output of a git command; `given` is its standard input."""
    done = _run(folder, words, given)
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").split("\n")
        reason = next((line for line in lines if line.strip()), "no reason given")
        reason = reason.strip().removeprefix("fatal: ")
        remedy = DAMAGED
        if "not a git repository" in reason:
            remedy = "Read the files as they are with `kind: folder`, or point `path` to a clone."
        if "dubious ownership" in reason:  # of another user, as in a container
            remedy = f"Trust it with `git config --global --add safe.directory {folder}`."
        raise PipelineError(f"git can't read the repository at {folder}: {reason}", remedy)
    return done.stdout


def _run(
    folder: Path, words: Sequence[str], given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            _command(folder, words),
            input=given,
            capture_output=True,
            check=False,
            env=_environment(),
        )
    except FileNotFoundError as error:
        raise PipelineError(
            "ingest has a source of kind git, and git is not installed", "Install git."
        ) from error


def _command(folder: Path, words: Sequence[str]) -> list[str]:
    return ["git", "-C", str(folder), "--no-replace-objects", "--no-optional-locks", *words]


def _environment() -> dict[str, str]:
    """The user's environment, whose git configuration (safe.directory) applies; without GIT_*
    variables, which could name another repository, without prompts, lazy fetches and grafts, which
    would change the history of a commit."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    own = {"GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
    return kept | own | {"GIT_GRAFT_FILE": os.devnull}
