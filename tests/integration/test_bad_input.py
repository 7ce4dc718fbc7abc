"""Malformed files and rows: no crash, no lost good row, each bad one told by file and line.

Every case is a file with some good rows in it. A good row's output holds "good" and a number, so it
can be found again; what is bad is told by the lines that must stand in the ledger.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.models.packed_dataset import Windows
from tasks.core.rows import row_schema
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.filtering import STAGE as FILTER
from tasks.ingestion import STAGE
from tasks.ingestion.executable import EXECUTABLE
from tasks.ingestion.formats.files import text_lines
from tasks.prompting import STAGE as PROMPT
from tasks.tokenization import STAGE as TOKENIZE

FUZZED = 2000
ROWS_A_FILE = 6


@dataclass(frozen=True)
class Case:
    """A file, how many good rows are in it, and the lines of the bad ones (0: the whole file)."""

    name: str
    content: bytes
    good: int
    bad: tuple[int, ...] = ()
    problem: str = ""


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {"instruction": f"do {number}", "input": "", "output": f"good {number}", **fields}


def line(number: int = 1, **fields: Any) -> bytes:
    return json.dumps(row(number, **fields)).encode()


def raw(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def pretty(number: int) -> bytes:
    return json.dumps(row(number), indent=2).encode()


def jsonl(name: str, bad: bytes, problem: str, lines: tuple[int, ...] = (2,)) -> Case:
    return Case(f"{name}.jsonl", b"\n".join([line(1), bad, line(2)]) + b"\n", 2, lines, problem)


def parquet(name: str, good: int, bad: int, problem: str, **columns: Any) -> Case:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return Case(f"{name}.parquet", sink.getvalue(), good, tuple(range(1, bad + 1)), problem)


def packed(name: str, pack: Callable[[bytes], bytes], problem: str) -> Case:
    return Case(name, pack(line() + b"\n"), 0, (0,), problem)


def zipped(content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("rows.jsonl", content)
    return sink.getvalue()


def tarred(content: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("rows.jsonl"), io.BytesIO(content))
    return sink.getvalue()


DEEP = 100_000
HEADER = b"instruction,input,output\n"
DUPLICATES = pa.Table.from_arrays(
    [pa.array(["a"]), pa.array(["good 1"]), pa.array(["b"])],
    names=["instruction", "output", "output"],
)


NO_TEXT = pa.array([b"\xff\xfe", b"good 1"])


def whole(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def damaged_groups() -> bytes:
    """Three row groups of one row; the middle one is overwritten."""
    table = pa.Table.from_pylist([row(1), row(7, output="BAD" * 50), row(2)])
    content = whole(table, row_group_size=1, compression="none", use_dictionary=False)
    at = content.index(b"BADBAD")
    return content[: at - 80] + b"\xff" * 120 + content[at + 40 :]


JSON_LINES = [
    jsonl("cut_object", b'{"instruction": "a", "output": ', "malformed JSON"),
    jsonl("no_comma", b'{"instruction": "a" "output": "b"}', "malformed JSON"),
    jsonl("single_quotes", b"{'instruction': 'a', 'output': 'b'}", "malformed JSON"),
    jsonl("trailing_comma", b'{"instruction": "a", "output": "b",}', "malformed JSON"),
    jsonl("two_objects", line() + line(), "malformed JSON"),
    jsonl("bare_word", b"undefined", "malformed JSON"),
    jsonl("open_string", b'{"instruction": "a, "output": "b}', "malformed JSON"),
    jsonl("raw_newline", b'{"instruction": "a\nb", "output": "c"}', "malformed JSON", (2, 3)),
    jsonl("raw_control", b'{"instruction": "a\x01b", "output": "c"}', "malformed JSON"),
    jsonl("bad_escape", b'{"instruction": "a\\qb", "output": "c"}', "malformed JSON"),
    jsonl("bad_unicode_escape", b'{"instruction": "a\\u12g4", "output": "c"}', "malformed JSON"),
    jsonl("lone_surrogate", b'{"instruction": "a\\ud800", "output": "c"}', "half of a character"),
    jsonl("latin1", '{"instruction": "café", "output": "c"}'.encode("latin-1"), "0xe9 is not"),
    jsonl("cp1252", b'{"instruction": "it\x92s", "output": "c"}', "0x92 is not UTF-8"),
    jsonl("shift_jis", '{"instruction": "日本", "output": "c"}'.encode("shift-jis"), "not UTF-8"),
    jsonl("cut_utf8", b'{"instruction": "caf\xc3", "output": "c"}', "0xc3 is not UTF-8"),
    jsonl("overlong_utf8", b'{"instruction": "\xc0\xaf", "output": "c"}', "0xc0 is not UTF-8"),
    jsonl("nul_byte", b'{"instruction": "a\x00b", "output": "c"}', "malformed JSON"),
    jsonl("nul_escape", b'{"instruction": "a\\u0000b", "output": "c"}', "contains a NUL byte"),
    jsonl("only_nuls", b"\x00" * 50, "malformed JSON"),
    jsonl("deep_lists", b"[" * DEEP + b"]" * DEEP, "malformed JSON"),
    jsonl("deep_objects", b'{"a":' * DEEP + b"1" + b"}" * DEEP, "malformed JSON"),
    jsonl("huge_integer", b'{"instruction": "a", "output": 1' + b"0" * 5000 + b"}", "malformed"),
    jsonl("number", b'{"instruction": "a", "output": 12}', "output is of type int"),
    jsonl("not_a_number", b'{"instruction": "a", "output": NaN}', "output is of type float"),
    jsonl("huge_float", b'{"instruction": "a", "output": 1e999}', "output is of type float"),
    jsonl("boolean", b'{"instruction": true, "output": "c"}', "instruction is of type bool"),
    jsonl("null", b'{"instruction": "a", "output": null}', "output is empty"),
    jsonl("list_of_texts", b'{"instruction": "a", "output": ["c"]}', "output is of type list"),
    jsonl("object_as_text", b'{"instruction": {"a": "b"}, "output": "c"}', "is of type dict"),
    jsonl("no_output", b'{"instruction": "a"}', "no column 'output'"),
    jsonl("empty_object", b"{}", "no column 'instruction'"),
    jsonl("blank_output", b'{"instruction": "a", "output": " \\n\\t "}', "output is empty"),
    jsonl("array_line", b"[1, 2]", "is a JSON list"),
    jsonl("text_line", b'"text"', "is a JSON str"),
    jsonl("csv_line", b"a,b,c", "malformed JSON"),
    jsonl("merge_conflict", b"<<<<<<< HEAD", "malformed JSON"),
    Case("empty_lines.jsonl", b"\n\n" + line(1) + b"\n \n\t\n" + line(2), 2),
    Case("dos_lines.jsonl", line(1) + b"\r\n" + line(2) + b"\r\n", 2),
    Case("no_last_newline.jsonl", line(1) + b"\n" + line(2), 2),
    Case("utf8_mark.jsonl", b"\xef\xbb\xbf" + line(1) + b"\n" + line(2), 2),
    Case("double_key.jsonl", b'{"instruction": "x", "output": "x", "output": "good 1"}', 1),
    Case("other_case.jsonl", line(1) + b'\n{"Instruction": "a", "Output": "good 2"}\n', 2),
    Case("bidi.jsonl", line(1, input="\u202e\u2066 x \u2069") + b"\n" + line(2), 2),
    Case("odd_letters.jsonl", line(1, input="\ufeff\u200b\U000e0041\x7f\x85\u2028") + b"\n", 1),
    Case(
        "line_separators.jsonl",
        json.dumps(row(1, input="a\u2028b\x85c"), ensure_ascii=False).encode(),
        1,
    ),
    Case("utf16.jsonl", (line().decode() + "\n").encode("utf-16"), 1),
    Case("utf32.jsonl", (line().decode() + "\n").encode("utf-32"), 0, (0,), "UTF-32"),
    Case("empty.jsonl", b"", 0),
    Case("gzip.jsonl", gzip.compress(line(1)), 1),
    Case("bzip2.jsonl", bz2.compress(line(1)), 1),
    Case("xz.jsonl", lzma.compress(line(1)), 1),
    Case("cut.jsonl.gz", gzip.compress(line(1))[:-9], 0, (0,), "compressed data is damaged"),
    Case("cut.json.xz", lzma.compress(line(1))[:-9], 0, (0,), "compressed data is damaged"),
    Case("cut.csv.bz2", bz2.compress(line(1))[:-9], 0, (0,), "compressed data is damaged"),
    packed("zip.jsonl", zipped, "zip archive"),
    packed("tar.csv", tarred, "tar archive"),
    packed("zip.json", zipped, "zip archive"),
]
AND, END = b",\n", b"]"
ONE, TWO = b"[" + line(1) + AND, line(2) + END
JSON_FILES = [
    Case("cut_array.json", b"[" + line(1) + b",\n" + line(2)[:-5], 1, (2,), "the rest"),
    Case("bad_item.json", b"[" + line(1) + b',\n{"a": oops},\n' + line(2) + b"]", 2, (2,)),
    Case("bad_item_in_one_line.json", b"[" + line(1) + b', {"a" 1}, ' + line(2) + b"]", 2, (1,)),
    Case("open_item.json", b"[" + line(1) + b',\n{"a": 1,\n' + line(2) + b"\n]", 2, (2,)),
    Case("open_text.json", b"[" + line(1) + b',\n{"a": "b},\n' + line(2) + b"\n]", 2, (2,)),
    Case("no_commas.json", b"[" + line(1) + b"\n" + line(2) + b"]", 2),
    Case("deep_item.json", ONE + b"[" * DEEP + AND + TWO, 2, (2,)),
    Case("scalars.json", ONE + b"3, null, " + TWO, 2, (2, 2), "is a JSON"),
    Case("nested_array.json", b"[[" + line(1) + b"]]", 1, (1,), "is a JSON list"),
    Case(
        "behind.json", b"[" + line(1) + b"]\n" + line(2), 2, (2,), "after the end of the JSON array"
    ),
    Case("early_end.json", ONE + b"]" + TWO, 2, (2,), "after the end of the JSON array"),
    Case("stray_bracket.json", ONE + b"[" + TWO, 2, (2, 2)),
    Case("list_of_scalars.json", ONE + b"[1, 2],\n" + TWO, 2, (2,), "is a JSON list"),
    Case("scalar.json", b"12", 0, (1,), "contains no JSON array"),
    Case("open_array.json", b"[", 0, (1,), "malformed JSON"),
    Case("empty_array.json", b"[]", 0),
    Case("pretty_object.json", pretty(1), 1),
    Case(
        "pretty_objects.json", b"\n".join(json.dumps(row(n), indent=2).encode() for n in (1, 2)), 2
    ),
    Case(
        "latin1_item.json",
        b"[" + line(1) + b',\n{"instruction": "caf\xe9", "output": "c"}]',
        1,
        (2,),
    ),
]
TABLES = [
    Case("quotes.csv", HEADER + b'a,"x, ""y""\nz",good 1\nb,,good 2\n', 2),
    Case("stray_quote.csv", HEADER + b'a,b,good 1\nc,"d,e\nf,g,good 2\nh,"i",good 3\n', 3, (3,)),
    Case("open_quote.csv", HEADER + b'a,b,good 1\nc,d,"e\nf,g,good 2\n', 2, (3,), "malformed CSV"),
    Case("quote_inside.csv", HEADER + b'a,b,good 1\nc,"d"e,f\ng,h,good 2\n', 2, (3,)),
    Case("too_many.csv", HEADER + b"a,b,c,d\ne,f,good 1\n", 1, (2,), "4 fields, the header has 3"),
    Case("too_few.csv", HEADER + b"a,b\ne,f,good 1\n", 1, (2,), "2 fields, the header has 3"),
    Case("blank_lines.csv", HEADER + b"\n\na,b,good 1\n\n", 1),
    Case("dos.csv", HEADER.replace(b"\n", b"\r\n") + b"a,b,good 1\r\nc,d,good 2\r\n", 2),
    Case("old_mac.csv", (HEADER + b"a,b,good 1\nc,d,good 2\n").replace(b"\n", b"\r"), 2),
    Case("latin1.csv", HEADER + b"caf\xe9,b,c\nd,e,good 1\n", 1, (2,), "not valid UTF-8"),
    Case("nul.csv", HEADER + b"a\x00,b,c\nd,e,good 1\n", 1, (2,), "NUL byte"),
    Case("empty_fields.csv", HEADER + b",,\na,b,good 1\n", 1, (2,), "is empty"),
    Case("semicolons.csv", HEADER.replace(b",", b";") + b"a;b;good 1\n", 1),
    Case("only_header.csv", HEADER, 0),
    Case("bad_header.csv", b'"instruction"x,output\na,b\n', 0, (1,), "malformed CSV header"),
    Case("tabs.tsv", HEADER.replace(b",", b"\t") + b'a\tb\tgood 1\nc\t"d\ne\tf\tgood 2\n', 2, (3,)),
    parquet("numbers", 0, 2, "of type int", instruction=["a", "b"], output=[1, 2]),
    parquet("bytes", 0, 1, "not valid UTF-8", instruction=["a"], output=[b"\xff"]),
    parquet("lists", 0, 1, "of type list", instruction=["a"], output=[["b"]]),
    parquet("structs", 0, 1, "of type dict", instruction=["a"], output=[{"b": 1}]),
    parquet("dates", 0, 1, "of type datetime", instruction=["a"], output=[datetime(2020, 1, 1)]),
    parquet(
        "far_dates",
        0,
        1,
        "expected text",
        instruction=["a"],
        output=pa.array([2**55], pa.timestamp("ms")),
    ),
    parquet("nulls", 1, 1, "is empty", instruction=["a", "b"], output=[None, "good 1"]),
    parquet("no_column", 0, 1, "no column", instruction=["a"], other=["b"]),
    parquet(
        "large_text", 1, 0, "", instruction=pa.array(["a"], pa.large_string()), output=["good 1"]
    ),
    parquet(
        "categories", 1, 0, "", instruction=["a"], output=pa.array(["good 1"]).dictionary_encode()
    ),
    parquet(
        "wrong_bytes",
        1,
        1,
        "not valid UTF-8",
        instruction=["a", "b"],
        output=pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff\xfe", b"good 1"]).buffers()),
    ),
    Case("double_column.parquet", whole(DUPLICATES), 0, (0,), "2 columns are called 'output'"),
    Case(
        "double_column.csv", b"instruction,output,output\na,b,c\n", 0, (1,), "2 columns are called"
    ),
    Case("cut.parquet", whole(pa.table({"output": ["x"]}))[:-9], 0, (0,), "not a Parquet file"),
    Case("text.parquet", b"instruction,output\n", 0, (0,), "not a Parquet file"),
    Case("empty.parquet", b"", 0, (0,), "not a Parquet file"),
    Case("no_rows.parquet", whole(pa.Table.from_pylist([], row_schema.ROWS)), 0),
    Case("damaged_group.parquet", damaged_groups(), 2, (2,), "damaged Parquet"),
]


def function(number: int, doc: str = "Say the value.") -> bytes:
    return f'def f{number}(x):\n    """{doc}"""\n    return "good {number}"\n'.encode()


MORE = b"\n" + b"y = 1\n" * 500  # a file of one long line is left out as minified
FUNCTION = function(1)
CODE = [
    Case("syntax.py", FUNCTION + b"def g(:\n", 0, (4,), "not valid Python"),
    Case("python2.py", b"print 'x'\n", 0, (1,), "not valid Python"),
    Case("tabs.py", b"if x:\n\ty = 1\n        z = 2\n", 0, (3,), "not valid Python"),
    Case("open_string.py", FUNCTION + b'x = """', 0, (4,), "not valid Python"),
    Case("nul.py", FUNCTION + b"x = '\x00'\n", 0, (4,), "NUL byte"),
    Case("latin1.py", FUNCTION + b"# caf\xe9\n", 0, (4,), "0xe9 is not utf-8"),
    Case("declared_latin1.py", b"# coding: latin-1\n# caf\xe9\n" + FUNCTION, 1),
    Case("unknown_coding.py", b"# coding: klingon\n" + FUNCTION, 0, (1,), "wrong encoding"),
    Case("no_text_coding.py", b"# coding: hex\n" + FUNCTION, 0, (1,), "wrong encoding"),
    Case("undefined_coding.py", b"# coding: undefined\n" + FUNCTION, 0, (1,), "wrong encoding"),
    Case("utf16.py", FUNCTION.decode().encode("utf-16"), 0, (1,), "NUL byte"),
    Case(
        "deep_brackets.py", b"x = " + b"(" * 5000 + b")" * 5000 + MORE, 0, (1,), "not valid Python"
    ),
    Case(
        "deep_minus.py",
        FUNCTION + b"x = " + b"-" * 20_000 + b"1" + MORE,
        0,
        (0,),
        "not valid Python",
    ),
    Case(
        "deep_attributes.py",
        FUNCTION + b"x = a" + b".b" * 20_000 + MORE,
        0,
        (0,),
        "not valid Python",
    ),
    Case("deep_blocks.py", b"".join(b" " * n + b"if x:\n" for n in range(120)), 0, (101,)),
    Case("long_elif.py", FUNCTION + b"if x:\n    pass\n" + b"elif x:\n    pass\n" * 300, 1),
    Case("huge_integer.py", b"x = 1" + b"0" * 5000 + MORE, 0, (1,), "not valid Python"),
    Case(
        "surrogate_doc.py",
        function(1) + function(9, r"A \ud800 b."),
        2,
        (4,),
        "half of a character",
    ),
    Case("nul_doc.py", function(1) + function(9, r"A \0 b."), 2, (4,), "NUL byte"),
    Case("bidi.py", FUNCTION.replace(b"value", "\u202evalue".encode()), 1),
    Case("dos.py", FUNCTION.replace(b"\n", b"\r\n"), 1),
    Case("old_mac.py", FUNCTION.replace(b"\n", b"\r"), 1),
    Case("form_feed.py", b"\x0c\n" + FUNCTION, 1),
    Case("mark.py", b"\xef\xbb\xbf" + FUNCTION, 1),
    Case("binary.py", bytes(range(1, 256)), 0, (2,)),
    Case("empty.py", b"", 0),
    Case("notebook.py", b'{"cells": []}', 0),
    Case("huge.py", FUNCTION + b"#" * (9 << 20), 0, (0,), "bytes, at most"),
]
CASES = [*JSON_LINES, *JSON_FILES, *TABLES, *CODE]


@dataclass
class Found:
    """What came out, by the name of the file."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ledger: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    summary: Any = None


def ingest(out: Path, *sources: dict[str, Any]) -> Found:
    (out / "scratch").mkdir(parents=True)
    config = check({"ingest": {"sources": list(sources)}, "hardware": {"workers": 1}})
    found = Found()
    found.summary = STAGE.load_run()(View(config, STAGE.reads), {}, Work(out, out / "scratch"))
    for name, into in (("rows", found.rows), ("unreadable", found.ledger)):
        for entry in pq.read_table(out / f"{name}.parquet").to_pylist():
            into.setdefault(entry["path"], []).append(entry)
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """All cases, read in one run."""
    folder = tmp_path_factory.mktemp("corpus")
    for part, cases in (("data", [*JSON_LINES, *JSON_FILES, *TABLES]), ("code", CODE)):
        (folder / part).mkdir()
        for case in cases:
            (folder / part / case.name).write_bytes(case.content)
    with (folder / "data" / "long_line.jsonl").open("wb") as file:
        file.write(line(1) + b'\n{"instruction": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n' + line(2) + b"\n")
    (folder / "data" / "loop").symlink_to(folder / "data", target_is_directory=True)
    (folder / "data" / "self.jsonl").symlink_to("self.jsonl")
    (folder / "data" / "gone.jsonl").symlink_to("nowhere.jsonl")
    (folder / "data" / "broken_disk.jsonl").symlink_to("/proc/self/mem")  # opens, can't be read
    (folder / "data" / "folder.jsonl").mkdir()
    (folder / "data" / "rows.zip").write_bytes(zipped(line()))
    os.mkfifo(folder / "data" / "pipe.jsonl")
    Path(os.fsdecode(os.fsencode(folder / "data") + b"/caf\xe9.jsonl")).write_bytes(line(1))
    Path(os.fsdecode(os.fsencode(folder / "code") + b"/caf\xe9.py")).write_bytes(FUNCTION)
    locked = folder / "data" / "locked.jsonl"
    locked.write_bytes(line())
    locked.chmod(0)
    yield ingest(
        folder / "out",
        {"kind": "files", "path": str(folder / "data"), "name": "data"},
        {"kind": "folder", "path": str(folder / "code"), "name": "code"},
    )
    locked.chmod(0o600)


def good(rows: list[dict[str, Any]]) -> list[int]:
    return [int(n) for r in rows for n in re.findall(r"good (\d{1,4})(?!\d)", r["output"])]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_good_rows_stay_and_bad_ones_are_told(corpus: Found, case: Case) -> None:
    rows, ledger = corpus.rows.get(case.name, []), corpus.ledger.get(case.name, [])
    wanted = [1] if case.name in ("surrogate_doc.py", "nul_doc.py") else range(1, case.good + 1)
    assert good(rows) == list(wanted)
    assert [entry["line"] for entry in ledger] == list(case.bad)
    assert all(case.problem in entry["problem"] for entry in ledger)


def test_the_corpus_holds_many_kinds_of_malformed_files() -> None:
    malformed = {case.name for case in CASES if case.bad}
    assert len(malformed) >= 100 and len({case.name for case in CASES}) == len(CASES)
    told = Counter(Path(name).suffix for name in malformed)
    assert all(told[suffix] >= 5 for suffix in (".jsonl", ".json", ".csv", ".parquet", ".py"))


def test_a_line_of_100_mb_is_one_entry(corpus: Found) -> None:
    assert good(corpus.rows["long_line.jsonl"]) == [1, 2]
    assert [e["line"] for e in corpus.ledger["long_line.jsonl"]] == [2]


def test_links_that_lead_nowhere_or_in_circles_are_entries_or_passed_over(corpus: Found) -> None:
    assert [e["problem"] for e in corpus.ledger["gone.jsonl"]] == [
        "the file can't be read: No such file or directory"
    ]
    assert "can't be read" in corpus.ledger["self.jsonl"][0]["problem"]
    assert not [path for path in corpus.rows if path.startswith("loop/")]


def test_file_names_that_are_no_text_are_shown(corpus: Found) -> None:
    assert good(corpus.rows[r"caf\xe9.jsonl"]) == good(corpus.rows[r"caf\xe9.py"]) == [1]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no such file here")
def test_a_file_that_fails_while_it_is_read_is_one_entry(corpus: Found) -> None:
    assert [e["problem"] for e in corpus.ledger["broken_disk.jsonl"]] == [
        "the file can't be read: Input/output error"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_one_entry(corpus: Found) -> None:
    assert "Permission denied" in corpus.ledger["locked.jsonl"][0]["problem"]


def test_all_is_counted(corpus: Found) -> None:
    bad = sum(map(len, corpus.ledger.values()))
    assert corpus.summary.counts["unreadable"] == bad
    assert corpus.summary.rows_in == bad + sum(map(len, corpus.rows.values()))
    assert corpus.summary.counts["files of another format"] >= 1


# --- 2,000 mutated files ----------------------------------------------------------------------

NASTY = (
    b'"',
    b"'",
    b"\x00",
    b"\xff",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\\",
    b"\n",
    b"\r",
    b'""',
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\t",
    b":",
    b"1" * 5000,
    b"\\ud800",
    b"# coding: x",
)


def mutated(content: bytes, start: int, end: int, rng: random.Random) -> bytes:
    """A few bytes between `start` and `end` changed, taken out or put in."""
    piece = bytearray(content[start:end])
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(piece)) if piece else 0
        match rng.randrange(4):
            case 0:
                piece[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del piece[at : at + rng.randint(1, 8)]
            case 2:
                piece[at:at] = rng.choice(NASTY)
            case _:
                piece[at:at] = bytes(piece[at : at + 6])
    return content[:start] + bytes(piece) + content[end:]


def as_jsonl(rows: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(r).encode() + b"\n" for r in rows]


def as_json(rows: list[dict[str, Any]]) -> list[bytes]:
    items = [json.dumps(r).encode() for r in rows]
    return [b"[\n", *(item + b",\n" for item in items[:-1]), items[-1] + b"\n", b"]"]


def as_csv(rows: list[dict[str, Any]]) -> list[bytes]:
    texts = [f'{r["instruction"]},"{r["input"]}",{r["output"]}\n' for r in rows]
    return [HEADER, *(text.encode() for text in texts)]


FORMATS = {".jsonl": (as_jsonl, 0), ".json": (as_json, 1), ".csv": (as_csv, 1)}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, dict[str, set[int]]]:
    """Mutated files, read in one run, and the numbers of the rows that were left alone."""
    folder = tmp_path_factory.mktemp("fuzzed")
    data, code = folder / "data", folder / "code"
    data.mkdir()
    code.mkdir()
    rng = random.Random(0)
    untouched: dict[str, set[int]] = {}
    kinds = [*FORMATS, ".parquet", ".py"]
    for number in range(FUZZED):
        suffix = kinds[number % len(kinds)]
        name = f"f{number:04d}{suffix}"
        rows = [row(n, input=f"given, {n}") for n in range(ROWS_A_FILE)]
        if suffix in FORMATS:
            write, first = FORMATS[suffix]
            parts = write(rows)
            hit = rng.randrange(ROWS_A_FILE)
            start = sum(map(len, parts[: first + hit]))
            end = start + len(parts[first + hit].rstrip(b",\n"))
            content = mutated(b"".join(parts), start, end, rng)
            untouched[name] = set(range(ROWS_A_FILE)) - {hit}
        elif suffix == ".parquet":
            content = whole(pa.Table.from_pylist(rows), row_group_size=2)
            content = mutated(content, 0, len(content), rng)
        else:
            content = b"\n\n".join(function(n) for n in range(ROWS_A_FILE))
            content = mutated(content, 0, len(content), rng)
        (code if suffix == ".py" else data).joinpath(name).write_bytes(content)
    found = ingest(
        folder / "out",
        {"kind": "files", "path": str(data), "name": "data"},
        {"kind": "folder", "path": str(code), "name": "code"},
    )
    return found, untouched


def test_no_mutation_of_one_row_loses_another(fuzzed: tuple[Found, dict[str, set[int]]]) -> None:
    found, untouched = fuzzed
    lost = {
        name: left - set(good(found.rows.get(name, [])))
        for name, left in untouched.items()
        if left - set(good(found.rows.get(name, [])))
    }
    assert len(untouched) == FUZZED * 3 // 5 and lost == {}


def test_every_mutated_row_is_a_row_or_an_entry_with_file_and_line(
    fuzzed: tuple[Found, dict[str, set[int]]],
) -> None:
    found, untouched = fuzzed
    silent = [
        name
        for name in untouched
        if len(found.rows.get(name, [])) < ROWS_A_FILE and name not in found.ledger
    ]
    assert len(silent) <= len(untouched) // 100  # a row may be cut to an empty line
    assert all(e["line"] > 0 for name in untouched for e in found.ledger.get(name, []))


def test_what_was_read_can_be_written_and_tokenized(
    fuzzed: tuple[Found, dict[str, set[int]]], corpus: Found, tiny_model: Path, tmp_path: Path
) -> None:
    rows = [r for one in (fuzzed[0], corpus) for part in one.rows.values() for r in part][:4000]
    kept = [r | {"cluster": r["row_id"], "redactions": ""} for r in rows]
    pq.write_table(pa.Table.from_pylist(kept, schema=row_schema.KEPT), tmp_path / "kept.parquet")
    none = pa.table({"row_id": pa.array([], pa.string()), "test": pa.array([], pa.string())})
    pq.write_table(none, tmp_path / "executable.parquet")
    (tmp_path / "tokenizer").mkdir()
    for file in tiny_model.glob("*token*"):
        (tmp_path / "tokenizer" / file.name).write_bytes(file.read_bytes())
    limits = {"max_tokens": 8192, "model_type": "stablelm", "vocab_size": 512}
    (tmp_path / "tokenizer" / "model_limits.json").write_text(json.dumps(limits))
    plain = {"window_tokens": 8192, "min_characters_per_token": 0}  # the tokenizer is a tiny one
    config = check({"tokenize": plain})
    inputs = {
        "filter.kept": tmp_path / "kept.parquet",
        "ingest.executable": tmp_path / "executable.parquet",
        "base.tokenizer": tmp_path / "tokenizer",
    }
    for stage in (PROMPT, TOKENIZE):
        out = tmp_path / stage.name
        (out / "scratch").mkdir(parents=True)
        summary = stage.load_run()(View(config, stage.reads), inputs, Work(out, out / "scratch"))
        splits = ("train", "validation", "test")
        inputs |= {f"prompt.{s}": out / f"{s}.parquet" for s in splits}
        inputs["prompt.split"] = out / "split.json"
        assert summary.rows_in == summary.rows_out + sum(summary.counts.values())
    assert Windows.open(tmp_path / "tokenize" / "train").row_count > 1000


TERMS = 1500  # of a sum: a tree that deep parses, and is too deep for Python code to walk down
ODD_OUTPUTS = (
    "def add(x, y):\n    return x" + " + y" * TERMS,
    "def add(x, y):\n    return x" + ".y" * TERMS,
    "def add(x, y):\n    return " + "[" * 90 + "x" + "]" * 90,
    "def add(x, y):\n    return " + "-" * TERMS + "x",
    "```python\ndef add(x, y):\n    return x" + " + y" * TERMS + "\n```",
    "```" * 5_000,
    '"' * 9_999,
    "ab " * 50_000,
    "-----BEGIN RSA PRIVATE KEY-----" * 300,
    "a" * 1_000_000,
    "x@" * 50_000,
    "1." * 50_000,
    "\u202e\u2066\ufeff\u200b\U000e0041\x7f\x85\u2028",
    "# " + "\u0130\ufb03\u1e9e" * 1_000,
)


def test_what_was_read_can_be_judged_and_no_row_is_lost(
    fuzzed: tuple[Found, dict[str, set[int]]], corpus: Found, tmp_path: Path
) -> None:
    rows = [r for one in (fuzzed[0], corpus) for part in one.rows.values() for r in part]
    odd = [
        rows[0] | {"row_id": f"odd{number}{kind}", "output": output, "kind": kind}
        for number, output in enumerate(ODD_OUTPUTS)
        for kind in ("function", "instruction", "edit")
    ]
    table = pa.Table.from_pylist([*rows, *odd], schema=row_schema.ROWS)
    inputs = {"ingest.rows": tmp_path / "rows", "ingest.executable": tmp_path / "executable"}
    pq.write_table(table, inputs["ingest.rows"])
    pq.write_table(EXECUTABLE.empty_table(), inputs["ingest.executable"])
    out = tmp_path / "out"
    (out / "scratch").mkdir(parents=True)
    config = check({"hardware": {"workers": 1}})
    FILTER.load_run()(View(config, FILTER.reads), inputs, Work(out, out / "scratch"))
    found = [
        pq.read_table(out / f"{name}.parquet")["row_id"].to_pylist()
        for name in ("kept", "rejected")
    ]
    assert sorted(found[0] + found[1]) == sorted(table["row_id"].to_pylist())
    assert min(map(len, found)) > 10


def test_readers_hold_no_more_than_a_record(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_RECORD", 1000)
    monkeypatch.setattr(text_lines, "READ_CHARACTERS", 500)
    long = json.dumps(row(9, input="x" * 5000)).encode()
    for name, content in {
        "a.jsonl": b"\n".join([line(1), long, line(2)]),
        "a.json": b"[" + b",\n".join([line(1), long, line(2)]) + b"]",
        "a.csv": HEADER + b"a,b,good 1\n" + b"x" * 5000 + b"\nc,d,good 2\n",
    }.items():
        (tmp_path / name).write_bytes(content)
    found = ingest(tmp_path / "out", {"kind": "files", "path": str(tmp_path)})
    for name, number in (("a.jsonl", 2), ("a.json", 2), ("a.csv", 3)):
        assert good(found.rows[name]) == [1, 2], name
        assert [entry["line"] for entry in found.ledger[name]] == [number]
