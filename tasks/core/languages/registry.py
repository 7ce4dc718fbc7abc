"""All languages. A new one with a grammar is one module that defines a `Language` and one entry in
`LANGUAGES`; one without, a line in `without_grammar.py`."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache

from tasks.core.languages.definitions.bash import BASH
from tasks.core.languages.definitions.c import CPP, C
from tasks.core.languages.definitions.csharp import CSHARP
from tasks.core.languages.definitions.go import GO
from tasks.core.languages.definitions.java import JAVA
from tasks.core.languages.definitions.javascript import JAVASCRIPT
from tasks.core.languages.definitions.kotlin import KOTLIN
from tasks.core.languages.definitions.php import PHP
from tasks.core.languages.definitions.ruby import RUBY
from tasks.core.languages.definitions.rust import RUST
from tasks.core.languages.definitions.scala import SCALA
from tasks.core.languages.definitions.typescript import TSX, TYPESCRIPT
from tasks.core.languages.protocol import Language, NotParsableError, ParsedSource
from tasks.core.languages.python.definition import NOTEBOOK, PYTHON
from tasks.core.languages.without_grammar import PLAIN

LANGUAGES = (
    *(PYTHON, NOTEBOOK, JAVASCRIPT, TYPESCRIPT, TSX, GO, RUST, JAVA, C, CPP, CSHARP, RUBY, PHP),
    *(KOTLIN, SCALA, BASH),
)
ALL = (*LANGUAGES, *PLAIN)
BY_NAME = {language.name: language for language in reversed(ALL)}
BY_EXTENSION = {ending: language for language in ALL for ending in language.extensions}
# of those that are read by default
EXTENSIONS = tuple(ending for ending, language in BY_EXTENSION.items() if language.is_default)
ON_REQUEST = tuple(language.name for language in PLAIN if not language.is_default)
PARSERS = tuple(dict.fromkeys(name for language in LANGUAGES for name in language.parser))
SHEBANG = re.compile(rb"#!\s*\S*?/?(?:env\s+(?:-S\s+)?)?([\w.+-]+)(?:\s|$)")
SHEBANG_BYTES = 100
# a header has the same extension in C, C++ and Objective-C, which is not read
CPP_HEADER = re.compile(
    rb"^\s*(?:class\s+\w+[^;\n]*[{:]|namespace\b[^;\n]*\{|template\s*<|using namespace\b|"
    rb"(?:public|private|protected):)",
    re.MULTILINE,
)
OBJECTIVE_C_HEADER = re.compile(
    rb"^\s*(?:@(?:interface|protocol|class|end)\b|#import\b)", re.MULTILINE
)


def headers_of(paths: Iterable[str]) -> str:
    """Language of the headers of a source, which their text alone often does not show: that of most
    of its other C or C++ files."""
    endings = Counter(f".{path.rpartition('.')[2].lower()}" for path in paths)
    c, cpp = (sum(endings[e] for e in one.extensions if e != ".h") for one in (C, CPP))
    return CPP.name if cpp > c else C.name


def language_of(path: str, content: bytes = b"", headers: str = C.name) -> Language | None:
    """The language of a file, by its name; by its content if the name is ambiguous.

    Args:
        path: Of the file.
        content: Its bytes, or the first of them.
        headers: See `headers_of`.
    """
    name = path.rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    if stem and dot:
        found = BY_EXTENSION.get(f".{ending.lower()}")
        return _of_header(content, headers) if found is C and ending == "h" else found
    program = SHEBANG.match(content[:SHEBANG_BYTES])
    name = program[1].decode().rpartition("/")[2] if program else ""
    return next((language for language in ALL if name in language.shebangs), None)


def _of_header(content: bytes, headers: str) -> Language | None:
    if OBJECTIVE_C_HEADER.search(content):
        return None
    return CPP if CPP_HEADER.search(content) else BY_NAME[headers]


def parse(text: str, language: str) -> tuple[ParsedSource | None, str]:
    """A text, which may be a part of a file, as a tree and ""; else None and the reason.

    Args:
        text: The text.
        language: Its name; "" and unknown names are tried as Python.
    """
    try:
        return BY_NAME.get(language, PYTHON).parse_fragment(text), ""
    except NotParsableError as error:
        return None, str(error)


def titles(names: Collection[str] = ()) -> str:
    """Languages as they are written in prose; of no names, all."""
    known = [one for one in ALL if (one.name in names if names else one.is_default)]
    return ", ".join(dict.fromkeys(one.title for one in known))


@lru_cache(maxsize=1024)  # of the top folders of many files
def without_extension(name: str) -> str:
    """A file's name without the extension of its language; any other name as it is."""
    ending = next((ending for ending in EXTENSIONS if name.endswith(ending)), "")
    return name.removesuffix(ending)
