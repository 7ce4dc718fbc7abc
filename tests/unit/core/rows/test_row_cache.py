import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.artifacts.garbage_collection import collect, find_garbage
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.store import Store
from tasks.core.rows import row_cache
from tasks.core.rows import row_cache_shards as module
from tasks.core.rows.row_cache import by_columns, by_content, fill, opened
from tasks.core.rows.row_cache_file import Values
from tasks.core.rows.row_cache_folders import hold, old_folders
from tasks.core.rows.row_cache_shards import SHARDS, Shards
from tasks.core.rows.row_digests import row_digests
from tasks.core.stage import Work

SCHEMA = pa.schema([("upper", pa.string())])
CALLS: list[str] = []


def shout(rows: pa.Table) -> Values:
    """The text in capitals, and the code of each letter."""
    texts = rows.column("text").to_pylist()
    CALLS.extend(texts)
    numbers = [ord(letter) for text in texts for letter in text]
    counts = np.array([len(text) for text in texts], dtype=np.int64)
    table = pa.table([[text.upper() for text in texts]], schema=SCHEMA)
    return Values(table, np.array(numbers, dtype=np.int32), counts)


def tables(texts: list[str], size: int = 3) -> list[pa.Table]:
    table = pa.table({"text": pa.array(texts, pa.string())})
    return [table.slice(first, size) for first in range(0, len(texts), size)]


def cached(folder: Path, texts: list[str], arguments: str = "", workers: int = 1) -> list[tuple]:
    """The cached values of each text; `CALLS` are the texts that were computed."""
    CALLS.clear()
    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    work = Work(folder, scratch, folder / "shards", "code")
    with opened(work, arguments, SCHEMA, np.int32) as shards:
        fill(
            shards,
            by_content(tables(texts)),
            shout,
            lambda table: table,
            work,
            workers=workers,
            batch_rows=4,
            rows_for_processes=5,
            progress=("shout", len(texts)),
        )
        upper = shards.table(["upper"]).column("upper").to_pylist()
        blocks = shards.blocks(["upper"], scratch / "blocks")
        assert pa.concat_tables(blocks).column("upper").to_pylist() == upper
        return [(text, "".join(map(chr, shards.numbers(row)))) for row, text in enumerate(upper)]


def wanted(texts: list[str]) -> list[tuple]:
    return [(text.upper(), text) for text in texts]


TEXTS = [f"row {number}" for number in range(40)]


def test_each_row_gets_its_own_values_in_the_order_asked_for(tmp_path):
    assert cached(tmp_path, TEXTS) == wanted(TEXTS)


def test_values_in_blocks_on_disk_are_those_of_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    monkeypatch.setattr(module, "BUFFER_ROWS", 5)
    assert cached(tmp_path, TEXTS) == wanted(TEXTS)  # compares both
    turned = [*TEXTS[::-1], "one more"]
    assert cached(tmp_path, turned) == wanted(turned)


def test_a_second_run_works_out_only_rows_it_has_not_seen(tmp_path):
    cached(tmp_path, TEXTS)
    changed = ["new", *TEXTS[:20], "row 20 edited", *TEXTS[21:-1]]
    assert cached(tmp_path, changed) == wanted(changed)
    assert CALLS == ["new", "row 20 edited"]


def test_one_row_more_touches_one_shard(tmp_path):
    cached(tmp_path, TEXTS)
    (folder,) = (tmp_path / "shards").iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    cached(tmp_path, [*TEXTS[:7], "new", *TEXTS[7:]])
    assert sum(path.read_bytes() != before[path.name] for path in folder.iterdir()) == 1


def test_other_arguments_work_everything_out_again(tmp_path):
    cached(tmp_path, TEXTS, "one")
    cached(tmp_path, TEXTS, "other")
    assert CALLS == TEXTS


EDITS = st.lists(st.tuples(st.sampled_from(["add", "drop", "edit", "move"]), st.integers(0, 99)))


@settings(max_examples=25)
@given(st.lists(EDITS, min_size=1, max_size=4), st.integers(0, 9))
def test_any_edits_give_what_a_cold_run_gives(tmp_path_factory, rounds, seed):
    folder = tmp_path_factory.mktemp("shards")
    texts = list(TEXTS)
    cached(folder, texts)
    for edits in rounds:
        for what, place in edits:
            at = place % max(1, len(texts))
            if what == "add":
                texts.insert(at, f"row {place}-{len(texts)}")
            elif texts and what == "drop":
                texts.pop(at)
            elif texts and what == "edit":
                texts[at] += "é" * place
            elif what == "move":
                random.Random(seed + place).shuffle(texts)
        assert cached(folder, texts) == wanted(texts)


def test_processes_give_the_same(tmp_path):
    assert cached(tmp_path, TEXTS, workers=2) == wanted(TEXTS)
    assert cached(tmp_path, TEXTS[::-1]) == wanted(TEXTS[::-1]) and CALLS == []


@pytest.mark.parametrize("damage", ["torn", "edited", "garbage", "gone"])
def test_a_damaged_shard_costs_its_rows_and_nothing_else(tmp_path, damage):
    cached(tmp_path, TEXTS)
    (folder,) = (tmp_path / "shards").iterdir()
    path = max((p for p in folder.iterdir() if p.name != ".lock"), key=lambda p: p.stat().st_size)
    content = path.read_bytes()
    if damage == "torn":
        path.write_bytes(content[:-3])
    elif damage == "edited":
        path.write_bytes(content[:-3] + b"abc")
    elif damage == "garbage":
        path.write_bytes(b"\0" * 9)
    else:
        path.unlink()
    assert cached(tmp_path, TEXTS) == wanted(TEXTS)
    assert 0 < len(CALLS) < len(TEXTS) / 4
    assert cached(tmp_path, TEXTS) == wanted(TEXTS) and CALLS == []


def test_values_of_a_run_that_failed_are_there_for_the_next(tmp_path):
    folder = tmp_path / "shards"
    shards = Shards(folder, SCHEMA, np.int32)
    table = pa.table({"text": TEXTS})
    shards.add(row_digests(table), shout(table))
    shards.close()
    assert Shards(folder, SCHEMA, np.int32).contains(row_digests(table)).all()


def test_rows_no_longer_in_the_input_are_removed_once_they_are_most_of_a_shard(tmp_path):
    cached(tmp_path, TEXTS)
    cached(tmp_path, TEXTS[:8])
    cached(tmp_path, TEXTS)
    assert len(CALLS) > len(TEXTS) / 2


def test_a_shard_of_many_segments_is_rewritten(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_SEGMENTS", 2)
    monkeypatch.setattr(module, "BUFFER_ROWS", 1)
    monkeypatch.setattr(module, "BITS", 0)
    assert cached(tmp_path, TEXTS) == wanted(TEXTS)
    (folder,) = (tmp_path / "shards").iterdir()
    assert (folder / "00").read_bytes().count(b"shard-2\n") == 1
    assert cached(tmp_path, TEXTS) == wanted(TEXTS) and CALLS == []


def test_a_second_run_at_the_same_time_uses_a_temporary_folder(tmp_path):
    cached(tmp_path, TEXTS)
    (folder,) = (tmp_path / "shards").iterdir()
    held = hold(folder)
    assert held is not None
    assert cached(tmp_path, TEXTS) == wanted(TEXTS) and CALLS == TEXTS
    assert not list((tmp_path / "scratch").iterdir())


def test_the_folders_used_last_stay_and_those_in_use(tmp_path):
    for name in ("a", "b", "c", "d"):
        cached(tmp_path, TEXTS[:3], name)
    left = sorted((tmp_path / "shards").iterdir())
    assert len(left) == 2
    cached(tmp_path, TEXTS[:3], "d")
    assert CALLS == []
    (older,) = old_folders(tmp_path / "shards", keep=1)
    held = hold(older)
    assert held is not None
    assert older not in old_folders(tmp_path / "shards", keep=0)


def test_rows_of_other_columns_have_other_digests():
    one = row_digests(pa.table({"a": ["x\0", "x"], "b": ["y", "\0y"]}))
    assert len({tuple(row) for row in one.tolist()}) == 2
    assert SHARDS == 16


def test_rows_that_share_the_first_half_of_their_digests_are_told_apart(tmp_path, monkeypatch):
    def digests(table):
        full = row_digests(table).copy()
        full[:, 0] = 7
        return full

    monkeypatch.setattr(row_cache, "row_digests", digests)
    assert cached(tmp_path, TEXTS) == wanted(TEXTS)
    assert cached(tmp_path, [*TEXTS[::-1], "new"]) == wanted([*TEXTS[::-1], "new"])
    assert CALLS == ["new"]


def test_a_collection_leaves_the_shards_used_last(tmp_path):
    cached(tmp_path, TEXTS[:3], "a")
    cached(tmp_path, TEXTS[:3], "b")
    (tmp_path / "artifacts" / ".shards").mkdir(parents=True)
    (tmp_path / "shards").rename(tmp_path / "artifacts" / ".shards" / "filter")
    garbage = find_garbage(Store(tmp_path / "artifacts", DigestCache(None)), 0, 0, frozenset())
    assert len(garbage.leftovers) == 1
    collect(tmp_path / "artifacts", garbage)
    (tmp_path / "artifacts" / ".shards" / "filter").rename(tmp_path / "shards")
    cached(tmp_path, TEXTS[:3], "b")
    assert CALLS == []


def test_of_a_file_only_row_groups_with_new_rows_are_read(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    texts = [f"row {number}" for number in range(12)]
    groups: list[tuple[int, list[str]]] = []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda file, group, columns: groups.append((group, columns)) or read(file, group, columns),
    )

    def run(texts: list[str]) -> list[str]:
        groups.clear()
        pq.write_table(pa.table({"id": texts, "text": texts}), path, row_group_size=4)
        work = Work(tmp_path, tmp_path / "scratch", tmp_path / "shards", "code")
        with opened(work, "", SCHEMA, np.int32) as shards:
            fill(
                shards,
                by_columns(path, ["id"], ["text"]),
                shout,
                lambda table: table,
                work,
                workers=1,
                batch_rows=4,
                rows_for_processes=100,
                progress=("shout", len(texts)),
            )
            return shards.table(["upper"]).column("upper").to_pylist()

    run(texts[:9])
    assert run(texts) == [text.upper() for text in texts]
    assert groups == [(0, ["id"]), (1, ["id"]), (2, ["id"]), (2, ["text"])]
