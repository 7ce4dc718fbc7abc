"""Other programming languages: parts of the C, C++, CUDA, Fortran and CMake files in the packages
NumPy and PyTorch, which are installed wherever an evaluation runs.

Their versions are in the stage's key (`env`), so that the same key means the same texts.
"""

import importlib.util
from itertools import zip_longest
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.core.rows.hash_rank import keyed_rank
from tasks.evaluation.untouched.protocol import ProbeTexts

PLACES = (  # package, folder in it, suffix: one language each
    ("numpy", "_core/include", ".h"),
    ("numpy", "f2py/tests/src", ".f90"),
    ("torch", "include/c10", ".h"),
    ("torch", "include/ATen/native/cuda", ".cuh"),
    ("torch", "share/cmake", ".cmake"),
)
MAX_TEXTS = 96
CHARACTERS = 1_200
_LEAST = 300  # less says little


def texts() -> dict[str, str]:
    """Path in its package -> a part of the file; languages in turn, at most `MAX_TEXTS`.

    Raises:
        PipelineError: The packages contain no such files.
    """
    found = []
    for package, folder, suffix in PLACES:
        root = _root(package)
        files = sorted((root / folder).rglob(f"*{suffix}")) if root else []
        parts = {f"{package}/{f.relative_to(root).as_posix()}": _part(f) for f in files if root}
        long = {name: part for name, part in parts.items() if len(part) >= _LEAST}
        found.append(sorted(long.items(), key=lambda item: (keyed_rank(item[0], 0), item[0])))
    in_turn = [item for items in zip_longest(*found) for item in items if item is not None]
    if not in_turn:
        raise PipelineError(
            f"0 files in {len(PLACES)} folders of numpy and torch",
            "Install both again from wheels: pip install --force-reinstall numpy torch",
        )
    return dict(in_turn[:MAX_TEXTS])


def _root(package: str) -> Path | None:
    found = importlib.util.find_spec(package)
    folders = list(found.submodule_search_locations or ()) if found else []
    return Path(folders[0]) if folders else None


def _part(path: Path) -> str:
    """Lines from the second quarter on, past the license that many files begin with."""
    text = path.read_text(encoding="utf-8", errors="replace")
    start = text.find("\n", len(text) // 4) + 1
    return text[start : start + CHARACTERS]


OTHER_LANGUAGES = ProbeTexts("other languages", texts)
