"""Which files of a source tree are read as code; all others are counted by reason."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from tasks.core.languages.authorship import reason_of_name
from tasks.core.languages.registry import BY_EXTENSION, BY_NAME, EXTENSIONS, language_of
from tasks.ingestion.licenses import is_license_file

SHOWN_ENDINGS = 5
TEST_FILES, OTHER_LANGUAGES = "test files", "files in other languages"


class CodeSelection:
    """The choice of a source's files.

    Attributes:
        left_out: Number of files that are not read, by reason.
    """

    def __init__(self, include_tests: bool, languages: Collection[str]) -> None:
        """Choose by the settings of the source; no languages are all languages."""
        self._include_tests, self._languages = include_tests, frozenset(languages)
        named = (e for name in self._languages for e in BY_NAME[name].extensions)
        self._extensions = tuple(dict.fromkeys((*EXTENSIONS, *named)))
        self.left_out: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()  # of files that are not code in a known language
        self._on_request: set[str] = set()  # languages of files that are read where they are named

    def chosen(self, paths: Iterable[str], head: Callable[[str], bytes]) -> list[str]:
        """The paths that are read.

        Args:
            paths: Relative to the root of the tree.
            head: Gives the beginning of a file, whose language its name does not tell.
        """
        return [path for path in paths if self.takes(path, head)]

    def takes(self, path: str, head: Callable[[str], bytes]) -> bool:
        """Whether a file is read; if not, it is counted."""
        reason = reason_of_name(path) or self._reason(path, head)
        if reason:
            self.left_out[reason] += 1
        return not reason

    def _reason(self, path: str, head: Callable[[str], bytes]) -> str:
        name = path.rpartition("/")[2]
        lowered = name.lower()
        is_named = lowered.endswith(self._extensions)
        if not lowered.endswith(EXTENSIONS) and (
            is_license_file(name) or ("." in name and not is_named)
        ):
            return self._no_code(name)
        content = b"" if is_named else head(path)
        language = language_of(path, content)
        if language is None:
            return self._no_code(name)
        if self._languages and language.name not in self._languages:
            return OTHER_LANGUAGES
        is_left_out = not self._include_tests and language.is_test(path)
        return TEST_FILES if is_left_out else ""

    def _no_code(self, name: str) -> str:
        if "." in name and not is_license_file(name):
            ending = name.rpartition(".")[2]
            self._endings[ending] += 1
            if (language := BY_EXTENSION.get(f".{ending.lower()}")) is not None:
                self._on_request.add(language.name)
        return "files that are not code"

    def reasons(self) -> str:
        """Why no file is read, with the endings of those that are not code in a known language."""
        found = [f"{number:,} {reason}" for reason, number in self.left_out.items()]
        endings = ", ".join(ending for ending, _ in self._endings.most_common(SHOWN_ENDINGS))
        return ", ".join(found) + (f": {endings}" if endings else "")

    def remedy(self) -> str:
        """What lets a source that has no code have some."""
        if self.left_out[TEST_FILES]:
            return "Set `include_tests: true` of the source."
        if self.left_out[OTHER_LANGUAGES]:
            return "Remove `languages` from the source's settings."
        if self._on_request:
            names = ", ".join(sorted(self._on_request))
            return f"To read them as text, set `languages: [{names}]` and `rows: [files]`."
        return "Point its `path` to a folder with code in a known language."
