"""Held-out code as texts: the rows of the test split, joined by file."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.languages.registry import BY_NAME
from tasks.core.rows.hash_rank import keyed_rank
from tasks.core.rows.parquet import read_batches
from tasks.core.text.repository_format import repository_prompt

# of one file, the first of these kinds is used: the others repeat parts of its text
KINDS = ("file", "context", "function", "fill")
_MAX_GAP = 2  # empty lines between the windows of a file


@dataclass(frozen=True)
class CodeText:
    """A held-out text of code.

    Attributes:
        name: Source, path and, for a function or a window, its line.
        cluster: What the split never divides: a project, or a file.
        path: Of the file, in its source.
        language: Name in the registry of languages.
        head: Text that always goes before it: the line with the path, the files that it needs, or
            what documents a function.
        text: The text.
    """

    name: str
    cluster: str
    path: str
    language: str
    head: str
    text: str


def held_out_files(kept: Path, test: Path) -> tuple[list[tuple[str, str, str]], int]:
    """(cluster, source, path) of all files with held-out rows of code, projects in turn; and the
    number of rows of code in all splits."""
    clusters, code_rows = test_clusters(test), 0
    by_cluster: dict[str, set[tuple[str, str, str]]] = {}
    for batch in read_batches(kept, columns=["row_id", "kind", "source", "path", "language"]):
        for row in batch.filter(pc.is_in(batch["kind"], _kinds())).to_pylist():
            cluster = clusters.get(row["row_id"])
            code_rows += row["language"] in BY_NAME
            if cluster is not None and row["language"] in BY_NAME:
                file = (cluster, row["source"], row["path"])
                by_cluster.setdefault(cluster, set()).add(file)
    ranked = [sorted(files, key=_rank) for files in by_cluster.values()]
    ranked.sort(key=lambda files: _rank(files[0]))
    return [file for files in zip_longest(*ranked) for file in files if file is not None], code_rows


def test_clusters(test: Path) -> dict[str, str]:
    """Row id -> what the split never divides, of the test split."""
    table = pq.read_table(test, columns=["row_id", "project"])
    return dict(zip(table["row_id"].to_pylist(), table["project"].to_pylist(), strict=True))


def read(
    kept: Path, test: Path, files: Collection[tuple[str, str, str]]
) -> dict[tuple[str, str, str], list[CodeText]]:
    """The held-out texts of these files."""
    clusters, wanted = test_clusters(test), set(files)
    rows: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    columns = ["row_id", "kind", "source", "path", "line", "language"]
    columns += ["instruction", "output", "conversation"]
    for batch in read_batches(kept, columns=columns):
        for row in batch.filter(pc.is_in(batch["kind"], _kinds())).to_pylist():
            file = (clusters.get(row["row_id"], ""), row["source"], row["path"])
            if row["row_id"] in clusters and file in wanted:
                rows.setdefault(file, []).append(row)
    return {file: list(_texts(file, found)) for file, found in rows.items()}


def _texts(file: tuple[str, str, str], rows: list[Mapping[str, Any]]) -> Iterator[CodeText]:
    """The texts of a file: all its windows as one, or else each function or window of infilling."""
    cluster, source, path = file
    kind = next(kind for kind in KINDS if any(row["kind"] == kind for row in rows))
    own = sorted((r for r in rows if r["kind"] == kind), key=lambda r: (r["line"], r["row_id"]))
    name, language = f"{source}/{path}", own[0]["language"]
    if kind in ("file", "context"):
        head = own[0]["instruction"]
        if kind == "context":  # the files that it needs, in the base's repository format
            needed = json.loads(own[0]["conversation"])["context"]
            head = repository_prompt({**needed, "before": ""})
        yield CodeText(name, cluster, path, language, head, _joined(own))
        return
    for row in own:
        at = f"{name}:{row['line']}"
        if kind == "function":
            head = _comment(row["instruction"], BY_NAME[language].line_comment)
            yield CodeText(at, cluster, path, language, head, row["output"])
        else:
            hole = json.loads(row["conversation"])["fill"]
            text = hole["prefix"] + hole["middle"] + hole["suffix"]
            yield CodeText(at, cluster, path, language, "", text)


def _joined(windows: list[Mapping[str, Any]]) -> str:
    """The windows of a file, with the empty lines that were between them."""
    text, end = "", 0
    for window in windows:
        text += "\n" * max(0, min(_MAX_GAP, window["line"] - end - 1)) if text else ""
        text += window["output"]
        end = window["line"] - 1 + window["output"].count("\n")
    return text


def _comment(instruction: str, mark: str) -> str:
    """What documents a function, as comments above it; the signature at its end is left out."""
    prose = instruction.rpartition("\n\n")[0]
    return "".join(f"{mark} {line}".rstrip() + "\n" for line in prose.splitlines())


def _rank(file: tuple[str, str, str]) -> bytes:
    return keyed_rank("\0".join(file), 0)


def _kinds() -> pa.Array:
    return pa.array(KINDS)
