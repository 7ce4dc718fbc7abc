"""All programming languages. A new one is one module that defines a `Language` and one entry in
`LANGUAGES`."""

from tasks.ingestion.languages.protocol import Language
from tasks.ingestion.languages.python import PYTHON

LANGUAGES = (PYTHON,)
EXTENSIONS = tuple(ending for language in LANGUAGES for ending in language.extensions)
TEST_FOLDERS = frozenset({"test", "tests", "testing", "idle_test"})
TITLES = " or ".join(language.title for language in LANGUAGES)


def language_of(path: str) -> Language:
    """The language of a file whose name ends in one of `EXTENSIONS`."""
    for language in LANGUAGES:
        if path.endswith(language.extensions):
            return language
    raise ValueError(f"{path} is not source code")


def is_test(path: str) -> bool:
    """Whether the relative path of a source file is a test or in a folder of tests."""
    *folders, name = path.split("/")
    return language_of(name).is_test_name(name) or not TEST_FOLDERS.isdisjoint(folders)


def without_extension(name: str) -> str:
    """A file's name without the extension of its language; any other name as it is."""
    ending = next((ending for ending in EXTENSIONS if name.endswith(ending)), "")
    return name.removesuffix(ending)
