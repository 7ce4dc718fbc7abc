"""Imports: which files of a repository another one names.

A language gives for each import the files that it may mean, best first (`Language.imports`):
"/a/b.py" is that file of the repository, "a/b.py" one below any folder, and "a/b/*.go" all files of
a folder with that ending. What is not in the repository is a library and finds nothing.
"""

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence


def beside(path: str, name: str) -> str:
    """The file `name`, as a file at `path` names it, for `Language.imports`."""
    return posixpath.normpath(f"/{posixpath.dirname(path)}/{name}")


class RepositoryPaths:
    """The files of a repository, to look imports up in."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_folder: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self._paths):
            folder, _, name = path.rpartition("/")
            self._by_name[name].append(path)
            self._by_folder[folder].append(path)
        self._folders: dict[str, list[str]] = defaultdict(list)
        for folder in sorted(self._by_folder):
            self._folders[folder.rpartition("/")[2]].append(folder)

    def find(self, candidates: Sequence[str], importer: str) -> list[str]:
        """The files of the first candidate that exists, the importer excluded."""
        for candidate in candidates:
            folder, star, ending = candidate.partition("/*")
            if star:
                own = self._nearest(folder, self._folders, self._by_folder.keys(), importer)
                files = [p for p in self._by_folder.get(own or "", ()) if p.endswith(ending)]
                found = files if own is not None else []
            else:
                file = self._nearest(candidate, self._by_name, self._paths, importer)
                found = [file] if file else []
            if found := [path for path in found if path != importer]:
                return found
        return []

    def neighbors(self, path: str) -> list[str]:
        """The other files of a folder, those of the same name first (a header and its source), then
        the nearest by name."""
        folder, _, name = path.rpartition("/")
        stem = name.partition(".")[0]
        files = self._by_folder[folder]
        own = files.index(path)
        ranks = {
            other: (other.rpartition("/")[2].partition(".")[0] != stem, abs(place - own), other)
            for place, other in enumerate(files)
            if other != path
        }
        return sorted(ranks, key=ranks.__getitem__)

    def _nearest(
        self,
        wanted: str,
        by_name: "dict[str, list[str]]",
        known: "Iterable[str]",
        importer: str,
    ) -> str | None:
        """The place that ends in `wanted` and shares most folders with the importer."""
        if wanted.startswith("/"):
            return wanted[1:] if wanted[1:] in known else None
        ends = [
            place
            for place in by_name.get(wanted.rpartition("/")[2], ())
            if f"/{place}".endswith(f"/{wanted}")
        ]
        return min(ends, key=lambda place: (-_shared(place, importer), place), default=None)


def _shared(one: str, other: str) -> int:
    """Number of first folders that two paths share."""
    count = 0
    for a, b in zip(one.split("/")[:-1], other.split("/")[:-1], strict=False):
        if a != b:
            break
        count += 1
    return count
