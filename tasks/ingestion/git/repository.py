"""A git repository at a commit -> code files of its tree, and its history as edits."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tasks.ingestion.code_rows import (
    MAX_FILE_BYTES,
    MISSING,
    CodeFile,
    decode,
)
from tasks.ingestion.file_listing import NOT_SOURCE, is_test
from tasks.ingestion.git import plumbing
from tasks.ingestion.git.commit_rules import clean_subject, edit_problem, subject_problem
from tasks.ingestion.languages.python import NotPythonError
from tasks.ingestion.licences import from_header, from_text
from tasks.ingestion.packages import is_licence_file
from tasks.ingestion.rows import (
    Row,
    RowIds,
    Unreadable,
    excerpt,
    printable,
    text_problem,
)
from tasks.ingestion.source_trees import LicenceOf, nearest, together

MAX_LICENCE_BYTES = 1 << 20


def is_code(path: str) -> bool:
    """Whether a path of a tree is Python code of the project's own, by the rules of a folder."""
    *folders, name = path.split("/")
    is_hidden = any(part.startswith(".") for part in (*folders, name))
    return name.endswith(".py") and not is_hidden and NOT_SOURCE.isdisjoint(folders)


def project_of(source: str, path: str) -> str:
    """Each top folder (or file) is a project of its own, as in a folder of code."""
    return f"{source}/{path.partition('/')[0].removesuffix('.py')}"


class Repository:
    """One repository at one commit.

    Attributes:
        licences: {folder: (licence, evidence)} by the LICENSE files of the tree.
        blobs: Python files of the tree that are read.
    """

    def __init__(
        self, folder: Path, commit: str, source: str, stated: str, include_tests: bool
    ) -> None:
        self._folder, self._commit, self._source, self._stated = folder, commit, source, stated
        self._include_tests = include_tests
        tree = plumbing.files(folder, commit)
        code = [blob for blob in tree if is_code(blob.path)]
        self.blobs = [b for b in code if include_tests or not is_test(b.path)]
        self.test_files = len(code) - len(self.blobs)
        self.licences = self._read_licences(tree)

    def files(self) -> Iterator[CodeFile]:
        """Code files with their content."""
        with plumbing.objects(self._folder) as objects:
            for blob in self.blobs:
                licence, evidence = self._licence(blob.path)
                content = objects.read(blob.object_id, MAX_FILE_BYTES)
                yield CodeFile(
                    "",
                    blob.path,
                    self._source,
                    project_of(self._source, blob.path),
                    self._commit,
                    licence,
                    evidence,
                    MISSING if content is None else content,
                )

    def edits(
        self, counts: Counter[str], min_tokens: int, max_tokens: int
    ) -> Iterator[Row | Unreadable]:
        """Commits as edits, the oldest first; what is passed over is counted by reason."""
        with plumbing.objects(self._folder) as objects:
            for change in plumbing.changes(self._folder, self._commit):
                if not is_code(change.path) or (is_test(change.path) and not self._include_tests):
                    continue
                subject = clean_subject(change.subject)
                problem = subject_problem(subject) or text_problem("subject", subject, True)
                if problem:
                    counts[f"commits: {problem}"] += 1
                    continue
                try:
                    before = self._text(objects, change.before)
                    after = self._text(objects, change.after)
                except NotPythonError as error:
                    told = f"commit {change.commit}: {error}"
                    path = printable(change.path)
                    yield Unreadable(self._source, path, error.line, told, excerpt(subject))
                    continue
                if problem := edit_problem(before, after, min_tokens, max_tokens):
                    counts[f"commits: {problem}"] += 1
                else:
                    yield self._row(change, subject, before, after)

    def _text(self, objects: plumbing.Objects, object_id: str) -> str:
        """A file's text.

        Raises:
            NotPythonError: It is missing, too large, or no text.
        """
        raw = objects.read(object_id, MAX_FILE_BYTES)
        if raw is None:
            raise NotPythonError(f"object {object_id} is missing", 0)
        if isinstance(raw, int):
            raise NotPythonError(f"holds {raw:,} bytes, at most {MAX_FILE_BYTES:,} are read", 0)
        text = decode(raw)
        if problem := text_problem("the file", text, False):
            raise NotPythonError(problem, 0)
        return text

    def _row(self, change: plumbing.Change, subject: str, before: str, after: str) -> Row:
        path = printable(change.path)
        licence, evidence = from_header(after)
        if not licence:
            licence, evidence = self._licence(change.path)
        ids = RowIds(self._source, f"{path}\0{change.commit}")
        return Row(
            row_id=ids.next_id(subject, before, after),
            instruction=subject,
            input=before,
            output=after,
            kind="edit",
            source=self._source,
            project=printable(project_of(self._source, change.path)),
            path=path,
            line=1,
            version=change.commit,
            licence=licence,
            licence_evidence=printable(evidence),
        )

    def _licence(self, path: str) -> tuple[str, str]:
        licence, evidence = nearest(path, self.licences)
        if not licence and self._stated:
            return self._stated, "stated in the settings"
        return licence, evidence

    def _read_licences(self, tree: list[plumbing.Blob]) -> LicenceOf:
        found: dict[str, dict[str, str]] = {}
        with plumbing.objects(self._folder) as objects:
            for blob in tree:
                if is_licence_file(blob.path) and not blob.path.endswith(".py"):
                    raw = objects.read(blob.object_id, MAX_LICENCE_BYTES)
                    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else ""
                    folder = blob.path.rpartition("/")[0]
                    found.setdefault(folder, {})[blob.path] = from_text(text)
        return {folder: together(texts) for folder, texts in found.items()}
