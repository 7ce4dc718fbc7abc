"""What can be trained on in a folder or file: source code by language, data files by format."""

import subprocess
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from flows.commands.init.data_files import (
    MIN_RECORDS,
    DataFile,
    data_files,
    suggested,
    tried,
    without_test_splits,
)
from tasks.core.errors import PipelineError
from tasks.core.languages.authorship import is_generated
from tasks.core.languages.registry import headers_of, language_of, titles
from tasks.ingestion.formats.files.registry import EXTENSIONS
from tasks.ingestion.licenses import license_of_texts
from tasks.ingestion.sources.file_listing import head_of, is_repository, list_code, walk
from tasks.ingestion.sources.git import plumbing
from tasks.ingestion.sources.trees import is_license_text


@dataclass(frozen=True)
class FolderContents:
    """What was found.

    Attributes:
        place: The folder or file, absolute.
        languages: Number of source files by language, most first.
        data: Data files that rows can be read from.
        unread: Data files that need a setting.
        licence: SPDX license of the folder; "": unknown.
        licence_evidence: Where it is stated, or why it is unknown.
        is_project: Whether its code is one project, not a project in each folder.
        is_repository: Whether it is a git repository whose HEAD has code.
        uncommitted: Changed or new files of the repository, which a run does not read.
    """

    place: Path
    languages: dict[str, int]
    data: tuple[DataFile, ...]
    unread: tuple[DataFile, ...]
    licence: str
    licence_evidence: str
    is_project: bool
    is_repository: bool
    uncommitted: int


def inspect(place: Path) -> FolderContents:
    """Inspect a folder or a single data file.

    Raises:
        PipelineError: It holds nothing to train on.
    """
    is_folder = place.is_dir()
    code = _code_files(place) if is_folder else ()
    languages = _languages(place, code)
    files = without_test_splits(
        [tried(path) for path in (data_files(place) if is_folder else [place])]
    )
    data = tuple(file for file in files if file.rows)
    unread = tuple(file for file in files if not file.rows and file.problem)
    if not languages and not data:  # the columns of other files are not guessed
        guessed = [tried(file.path, suggested(file.problem)) for file in unread]
        data = tuple(file for file in guessed if file.rows)
        read = {file.path for file in data}
        unread = tuple(file for file in unread if file.path not in read)
    if not languages and not data:
        raise _nothing(place, unread)
    licence, evidence = _licence(place) if languages else ("", "")
    has_git = bool(languages) and (place / ".git").exists() and _has_code_at_head(place)
    return FolderContents(
        place=place,
        languages=languages,
        data=data,
        unread=unread,
        licence=licence,
        licence_evidence=evidence,
        is_project=bool(code) and is_repository(place, code),
        is_repository=has_git,
        uncommitted=_uncommitted(place) if has_git else 0,
    )


def _code_files(folder: Path) -> tuple[str, ...]:
    """Source files, without tests."""
    try:
        return list_code(str(folder), include_tests=False).files
    except PipelineError:  # it holds no source code
        return ()


def _languages(folder: Path, paths: Collection[str]) -> dict[str, int]:
    """Number of files by language, by their first lines: without generated files."""
    headers, found = headers_of(paths), Counter[str]()
    for path in paths:
        head = head_of(folder / path)
        if not is_generated(head) and (language := language_of(path, head, headers)):
            found["notebooks" if language.title == "notebook" else language.title] += 1
    return dict(found.most_common())


def _has_code_at_head(folder: Path) -> bool:
    try:
        _, commit = plumbing.resolve(str(folder), "HEAD")
        return any(language_of(blob.path) for blob in plumbing.files(folder, commit)[0])
    except PipelineError:  # no git, or no commit
        return False


def _uncommitted(folder: Path) -> int:
    """Source files of a repository whose content is not that of HEAD."""
    # a repository's configuration may name a program as its file system monitor
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "--no-optional-locks"]
    command += ["status", "--porcelain", "--untracked-files=all", "-z"]
    done = subprocess.run(command, capture_output=True, check=False)
    names = (entry[3:].decode("utf-8", "replace") for entry in done.stdout.split(b"\0"))
    return sum(language_of(name) is not None for name in names)


def _licence(folder: Path) -> tuple[str, str]:
    """(license, evidence) of the LICENSE files at the top of a folder."""
    names = [e.name for e in folder.iterdir() if is_license_text(e.name) and e.is_file()]
    texts = {name: (folder / name).read_text("utf-8", "replace") for name in sorted(names)}
    return license_of_texts(texts) if texts else ("", "no LICENSE file")


def _nothing(place: Path, unread: tuple[DataFile, ...]) -> PipelineError:
    if unread:
        return PipelineError(
            f"no row can be read from {place}", f"{unread[0].path.name}: {unread[0].problem}"
        )
    if place.is_file():
        problem = f"{place} is no data file of {MIN_RECORDS} rows or more"
    else:
        problem = f"{place} holds no source code outside tests, and no data file of {MIN_RECORDS} "
        problem += f"rows or more{_others(place)}"
    return PipelineError(
        problem,
        f"Name another place with `finetune init PATH`: code in {titles()}, or data in "
        f"{', '.join(EXTENSIONS)}. Plain text can be trained on as a .jsonl file with lines like "
        '{"text": "..."}.',
    )


def _others(folder: Path) -> str:
    """The kinds of files that are not read, most first."""
    kinds = Counter(Path(name).suffix or "nameless" for name in walk(folder, ""))
    named = ", ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common(3))
    return f"; not read: {named}" if named else ""
