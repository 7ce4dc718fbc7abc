"""Jupyter notebooks -> Python text: cells of code joined, cells of prose as comments, no outputs.

Commands of IPython (`%matplotlib inline`, `!pip install x`, `len?`) become comments where a cell
does not parse with them. A cell becomes a comment as a whole where it is in another language
(`%%bash`), or still does not parse (`cd ..`, unfinished code); if most cells do not, the notebook
is not read.
"""

import ast
import json
import re
import warnings
from typing import Any

from tasks.core.languages.protocol import NotParsableError

# a cell of these is still Python
PYTHON_MAGICS = frozenset({"%%time", "%%timeit", "%%capture", "%%prun", "%%python", "%%python3"})
COMMAND = re.compile(
    r"^(\s*)((?:[\w., ]+=\s*)?(?:%%?|!)\s*[\w{/.~$].*|\?{1,2}\S+|[\w.]+\?{1,2})\s*$"
)


def decode(raw: bytes) -> str:
    """The Python text of a notebook.

    Raises:
        NotParsableError: It is no notebook, or one of another language.
    """
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise NotParsableError(f"not a notebook: {error}", getattr(error, "lineno", 0)) from error
    cells = _cells(content)
    language = _language(content)
    if language not in ("python", "ipython", ""):
        raise NotParsableError(f"a notebook in {language}, only those in Python are read", 0)
    texts = [_text_of(cell) for cell in cells]
    code = [n for n, cell in enumerate(cells) if cell.get("cell_type") == "code"]
    invalid = [n for n in code if not _parses(texts[n])]
    if 2 * len(invalid) <= len(code):  # else its parser names the first of them
        for n in invalid:
            texts[n] = _commented(texts[n])
    return "\n\n".join(text for text in texts if text.strip()) + "\n"


def _cells(content: Any) -> list[dict[str, Any]]:
    """The cells; those of format 3 are in worksheets."""
    found: Any = None
    if isinstance(content, dict):
        sheets = content.get("worksheets")
        found = content.get("cells")
        if found is None and isinstance(sheets, list):
            found = [c for s in sheets if isinstance(s, dict) for c in s.get("cells", ())]
    if not isinstance(found, list):
        raise NotParsableError("not a notebook: it has no cells", 0)
    return [cell for cell in found if isinstance(cell, dict)]


def _language(content: dict[str, Any]) -> str:
    metadata = content.get("metadata")
    for place, key in (("kernelspec", "language"), ("language_info", "name")):
        about = metadata.get(place) if isinstance(metadata, dict) else None
        if isinstance(about, dict) and isinstance(about.get(key), str):
            return str(about[key]).lower()
    return ""


def _text_of(cell: dict[str, Any]) -> str:
    source = cell.get("source", cell.get("input", ""))
    text = "".join(map(str, source)) if isinstance(source, list) else str(source)
    text = text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    return _python(text) if cell.get("cell_type") == "code" else _commented(text)


def _python(text: str) -> str:
    """A cell of code, with the commands of IPython as comments where it needs that to parse."""
    first = text.lstrip().partition("\n")[0].split()
    if first and first[0].startswith("%%") and first[0] not in PYTHON_MAGICS:
        return _commented(text)
    return text if _parses(text) else "\n".join(map(_without_command, text.split("\n")))


def _without_command(line: str) -> str:
    command = COMMAND.match(line)
    if command is None:
        return line
    # inside a block a comment alone may leave the block empty
    return f"{command[1]}pass  # {command[2]}" if command[1] else f"# {command[2]}"


def _parses(text: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def _commented(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.split("\n"))
