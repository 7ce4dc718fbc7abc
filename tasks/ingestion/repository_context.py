"""What each file of a source needs from the other files of its repository, for rows of `context`:
the files that it imports, then its neighbors in the folder.

Only files of the same project are taken, so that no text passes from a project that is held out to
one that is trained on, and only those under the same license.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tasks.core.languages.authorship import reason_of_content
from tasks.core.languages.imports import RepositoryPaths
from tasks.core.languages.protocol import NotParsableError
from tasks.core.languages.registry import language_of
from tasks.ingestion.code_file import CodeFile, content_of
from tasks.ingestion.licenses import license_of_header

MIN_CHARACTERS = 200  # less of a file says little


class _FileHead(NamedTuple):
    """The beginning of a file, its license, and for each import the files that it may mean."""

    head: str
    license: str
    imports: tuple[tuple[str, ...], ...]


def with_context(files: Iterable[CodeFile], max_characters: int) -> Iterator[CodeFile]:
    """The files, each with its context, the most needed file first.

    Args:
        files: All files of a source.
        max_characters: Of the context of a file; one file fills at most half of it.
    """
    everything = list(files)
    texts: dict[str, dict[str, _FileHead]] = {}
    for file in everything:
        if (text := _read(file, max_characters // 2)) is not None:
            texts.setdefault(file.project, {})[file.path] = text
    paths = {project: RepositoryPaths(own) for project, own in texts.items()}
    for file in everything:
        own = texts.get(file.project, {})
        if file.path in own:
            needed = _needed(file.path, own, paths[file.project])
            yield file._replace(context=tuple(_bounded(needed, own, max_characters)))
        else:
            yield file


def _read(file: CodeFile, max_characters: int) -> _FileHead | None:
    """The text of a file; None if it gives no rows."""
    try:
        raw = content_of(file)
        language = language_of(file.path, raw, file.headers)
        if language is None or reason_of_content(raw):
            return None
        text = language.decode(raw)
    except (NotParsableError, OSError):
        return None
    header = license_of_header(text)
    license_id = header[0] if header[1] else file.license
    return _FileHead(
        cut_lines(text, max_characters), license_id, tuple(language.imports(text, file.path))
    )


def _needed(path: str, texts: dict[str, _FileHead], paths: RepositoryPaths) -> list[str]:
    """Other files by how much a file needs them."""
    imported = (paths.find(candidates, path) for candidates in texts[path].imports)
    found = [other for files in imported for other in files] + paths.neighbors(path)
    own = texts[path].license
    return [other for other in dict.fromkeys(found) if texts[other].license == own]


def _bounded(
    needed: Iterable[str], texts: dict[str, _FileHead], max_characters: int
) -> Iterator[tuple[str, str]]:
    room = max_characters
    for path in needed:
        text = texts[path].head
        if room < MIN_CHARACTERS:
            return
        if text := cut_lines(text, room):
            yield path, text
            room -= len(text)


def cut_lines(text: str, max_characters: int) -> str:
    """The first whole lines of a text, without empty lines around them, ended by a line end."""
    text = text.strip("\n") + "\n"
    if len(text) > max_characters:
        text = text[: text.rfind("\n", 0, max_characters) + 1]
    return text if text.strip() else ""
