"""What can be trained on in a folder or file: source code by language, data files by format."""

import subprocess
from collections import Counter
from collections.abc import Collection, Sequence
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
from tasks.core.languages.protocol import Language
from tasks.core.languages.registry import ON_REQUEST, headers_of, language_of, titles
from tasks.ingestion.formats.files.registry import EXTENSIONS
from tasks.ingestion.licenses import TEXTS_FOLDER, license_of_texts
from tasks.ingestion.sources.digests import MIN_ROWS
from tasks.ingestion.sources.file_listing import head_of, is_repository, list_code, walk
from tasks.ingestion.sources.git import plumbing
from tasks.ingestion.sources.trees import is_license_text


@dataclass(frozen=True)
class FolderContents:
    """What was found.

    Attributes:
        place: The folder or file, absolute.
        languages: Number of source files by language, most first.
        requested: Names of the languages, where there is text such as Markdown and no code whose
            functions are known.
        data: Data files that rows can be read from.
        unread: Data files that need a setting.
        licence: SPDX license of the folder; "": unknown.
        licence_evidence: Where it is stated, or why it is unknown.
        is_project: Whether its code is one project, not a project in each folder.
        is_repository: Whether it is a git repository whose HEAD has code.
        uncommitted: Changed or new files of the repository, which a run does not read.
        submodules: Of the repository; a run does not read their files.
    """

    place: Path
    languages: dict[str, int]
    requested: tuple[str, ...]
    data: tuple[DataFile, ...]
    unread: tuple[DataFile, ...]
    licence: str
    licence_evidence: str
    is_project: bool
    is_repository: bool
    uncommitted: int
    submodules: tuple[str, ...] = ()


def inspect(place: Path) -> FolderContents:
    """Inspect a folder or a single data file.

    Raises:
        PipelineError: It holds nothing to train on.
    """
    is_folder = place.is_dir()
    has_git, submodules = _head(place)
    inner = tuple(f"{name}/" for name in submodules)
    code = tuple(p for p in _code_files(place) if not p.startswith(inner)) if is_folder else ()
    found = _languages(place, code)
    files = without_test_splits(
        [tried(path) for path in (data_files(place) if is_folder else [place])]
    )
    data = tuple(file for file in files if file.rows)
    unread = tuple(file for file in files if not file.rows and file.problem)
    if not found and not data:  # the columns of other files are not guessed
        guessed = [tried(file.path, suggested(file.problem)) for file in unread]
        data = tuple(file for file in guessed if file.rows)
        read = {file.path for file in data}
        unread = tuple(file for file in unread if file.path not in read)
    requested: tuple[str, ...] = ()
    if is_folder and not data and not unread and not any(one.parser for one in found):
        names = (*ON_REQUEST, *(one.name for one in found))
        text = _code_files(place, names)
        if len(text) >= MIN_ROWS:  # fewer can't be divided
            code, found = text, _languages(place, text)
            requested = tuple(sorted({one.name for one in found}))
    titles_of = ("notebooks" if one.title == "notebook" else one.title for one in found)
    languages = dict(Counter(titles_of).most_common())
    if not languages and not data:
        raise _nothing(place, unread)
    licence, evidence = _licence(place) if languages else ("", "")
    has_git = has_git and bool(languages)
    return FolderContents(
        place=place,
        languages=languages,
        requested=requested,
        data=data,
        unread=unread,
        licence=licence,
        licence_evidence=evidence,
        is_project=bool(code) and is_repository(place, code),
        is_repository=has_git,
        uncommitted=_uncommitted(place) if has_git else 0,
        submodules=submodules if has_git else (),
    )


def _code_files(folder: Path, languages: Sequence[str] = ()) -> tuple[str, ...]:
    """Source files, without tests."""
    try:
        return list_code(str(folder), include_tests=False, languages=languages).files
    except PipelineError:  # it holds no source code
        return ()


def _languages(folder: Path, paths: Collection[str]) -> list[Language]:
    """The language of each file, by its first lines; generated files are left out."""
    headers = headers_of(paths)
    heads = ((path, head_of(folder / path)) for path in paths)
    found = (language_of(p, head, headers) for p, head in heads if not is_generated(head))
    return [language for language in found if language]


def _head(folder: Path) -> tuple[bool, tuple[str, ...]]:
    """Whether a folder is a git repository with code in its HEAD, and then its submodules."""
    if not (folder / ".git").exists():
        return False, ()
    try:
        _, commit = plumbing.resolve(str(folder), "HEAD")
        blobs, submodules = plumbing.files(folder, commit)
    except PipelineError:  # no git, or no commit
        return False, ()
    has_code = any(_is_code(blob.path) for blob in blobs)
    return has_code, tuple(submodules) if has_code else ()


def _uncommitted(folder: Path) -> int:
    """Source files of a repository whose content is not that of HEAD."""
    # a repository's configuration may name a program as its file system monitor
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "--no-optional-locks"]
    command += ["status", "--porcelain", "--untracked-files=all", "-z"]
    done = subprocess.run(command, capture_output=True, check=False)
    names = (entry[3:].decode("utf-8", "replace") for entry in done.stdout.split(b"\0"))
    return sum(map(_is_code, names))


def _is_code(path: str) -> bool:
    language = language_of(path)
    return language is not None and language.is_default


def _licence(folder: Path) -> tuple[str, str]:
    """(license, evidence) of the LICENSE files at the top of a folder, or of those in LICENSES."""
    here = [path for path in folder.iterdir() if is_license_text(path.name) and path.is_file()]
    found = sorted(here or (folder / TEXTS_FOLDER).glob("*.txt"))
    texts = {
        path.relative_to(folder).as_posix(): path.read_text("utf-8", "replace") for path in found
    }
    return license_of_texts(texts) if texts else ("", "no LICENSE file")


def _nothing(place: Path, unread: tuple[DataFile, ...]) -> PipelineError:
    if unread:
        return PipelineError(
            f"no row can be read from {place}", f"{unread[0].path.name}: {unread[0].problem}"
        )
    if place.is_file():
        problem = f"{place} is not a data file of {MIN_RECORDS} rows or more"
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
