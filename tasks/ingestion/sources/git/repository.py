"""A git repository at a commit -> code files of its tree, and its history as edits."""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from tasks.core.languages.authorship import reason_of_content
from tasks.core.languages.protocol import NotParsableError
from tasks.core.languages.registry import headers_of, language_of
from tasks.core.progress import say
from tasks.core.system.escape_text import printable
from tasks.ingestion.code_file import MAX_FILE_BYTES, MISSING, CodeFile
from tasks.ingestion.code_rows import code_row
from tasks.ingestion.licenses import license_of_header
from tasks.ingestion.rows import Row, Unreadable, excerpt, text_problem
from tasks.ingestion.sources.code_selection import CodeSelection
from tasks.ingestion.sources.file_listing import HEAD_BYTES, NOT_SOURCE
from tasks.ingestion.sources.git import plumbing
from tasks.ingestion.sources.git.commit_rules import clean_subject, edit_problem, subject_problem
from tasks.ingestion.sources.trees import TreeLicenses, is_license_text, project_of

MAX_LICENSE_BYTES = 1 << 20


def is_listed(path: str) -> bool:
    """Whether a path of a tree is considered, by the rules of a folder: it is not hidden."""
    *folders, name = path.split("/")
    is_hidden = any(part.startswith(".") for part in (*folders, name))
    return not is_hidden and NOT_SOURCE.isdisjoint(folders)


class Repository:
    """One repository at one commit.

    Attributes:
        blobs: Code files of the tree that are read.
        left_out: Number of other files of the tree, by reason.
    """

    def __init__(
        self,
        folder: Path,
        commit: str,
        source: str,
        stated: str,
        include_tests: bool,
        group: str | None = None,
        languages: Collection[str] = (),
    ) -> None:
        self._folder, self._commit, self._source = folder, commit, source
        self._include_tests, self._languages = include_tests, languages
        self._group = group or "source"
        self._changed, self._committed = plumbing.dates(folder, commit)
        tree, submodules = plumbing.files(folder, commit)
        listed = {blob.path: blob for blob in tree if is_listed(blob.path)}
        selection = CodeSelection(include_tests, languages)
        texts = {}
        with plumbing.objects(folder) as objects:

            def head(path: str) -> bytes:
                content = objects.read(listed[path].object_id, MAX_FILE_BYTES)
                return content[:HEAD_BYTES] if isinstance(content, bytes) else b""

            self.blobs = [listed[path] for path in selection.chosen(listed, head)]
            self.left_out = selection.left_out
            if submodules:
                self.left_out["submodules"] = len(submodules)
                names = ", ".join(map(printable, submodules))
                say(f"source {source}: submodules are not read ({names}); name each as a source")
            self._headers = headers_of(blob.path for blob in self.blobs)
            for blob in tree:
                if is_license_text(blob.path):
                    raw = objects.read(blob.object_id, MAX_LICENSE_BYTES)
                    # one that is missing or too large counts as a text that is not recognized
                    texts[blob.path] = raw.decode("utf-8", "replace") if type(raw) is bytes else ""
        self._licenses = TreeLicenses(texts, stated)

    def _is_read(self, path: str) -> bool:
        """Whether the changes of a file are read; one without an extension is not read."""
        selection = CodeSelection(self._include_tests, self._languages)
        return is_listed(path) and selection.takes(path, lambda _: b"")

    def _file(
        self, path: str, version: str, content: bytes | int | None, date: str | None
    ) -> CodeFile:
        project = project_of(self._source, path, self._group)
        origin = (self._source, project, version, *self._licenses.of(path))
        return CodeFile("", path, *origin, content, date or "", headers=self._headers)

    def files(self) -> Iterator[CodeFile]:
        """Code files with their content."""
        with plumbing.objects(self._folder) as objects:
            for blob in self.blobs:
                content = objects.read(blob.object_id, MAX_FILE_BYTES)
                content = MISSING if content is None else content
                yield self._file(blob.path, self._commit, content, self._changed.get(blob.path))

    def edits(
        self, counts: Counter[str], min_tokens: int, max_tokens: int
    ) -> Iterator[Row | Unreadable]:
        """Commits as edits, the oldest first; skipped ones are counted by reason."""
        with plumbing.objects(self._folder) as objects:
            for change in plumbing.changes(self._folder, self._commit):
                if not self._is_read(change.path):
                    continue
                subject = clean_subject(change.subject)
                problem = subject_problem(subject) or text_problem("subject", subject, True)
                if problem:
                    counts[f"commits: {problem}"] += 1
                    continue
                try:
                    before = self._text(objects, change.path, change.before)
                    after = self._text(objects, change.path, change.after)
                except NotParsableError as error:
                    problem = f"commit {change.commit}: {error}"
                    path = printable(change.path)
                    yield Unreadable(self._source, path, error.line, problem, excerpt(subject))
                    continue
                language = language_of(change.path, after.encode(), self._headers)
                assert language is not None  # it is read
                problem = reason_of_content(after.encode())
                problem = problem or edit_problem(before, after, min_tokens, max_tokens, language)
                if problem:
                    counts[f"commits: {problem}"] += 1
                else:
                    date = self._committed.get(change.commit)
                    file = self._file(change.path, change.commit, None, date)
                    texts, header = (subject, before, after), license_of_header(after)
                    yield code_row(file, "edit", texts, 1, header, language.name)

    def _text(self, objects: plumbing.Objects, path: str, object_id: str) -> str:
        """The text of a source file.

        Raises:
            NotParsableError: It is missing, too large, or not text.
        """
        raw = objects.read(object_id, MAX_FILE_BYTES)
        if raw is None:
            raise NotParsableError(f"object {object_id} is missing", 0)
        if isinstance(raw, int):
            raise NotParsableError(f"has {raw:,} bytes, at most {MAX_FILE_BYTES:,} are read", 0)
        language = language_of(path, raw, self._headers)
        if language is None:
            raise NotParsableError("holds no code in a known language", 0)
        text = language.decode(raw)
        if problem := text_problem("the file", text, False):
            raise NotParsableError(problem, 0)
        return text
