import sqlite3

import pytest

from tasks.core.system.sqlite_cache import SqliteCache

COLUMNS = "key text primary key, value text"


def test_rows_are_shared_by_connections_and_replaced_by_key(tmp_path):
    path = tmp_path / "deep" / "cache.sqlite"
    one, other = SqliteCache(path, "cached", COLUMNS), SqliteCache(path, "cached", COLUMNS)
    assert one.replace([("a", "1"), ("b", "2")])
    assert other.replace([("a", "3")])
    assert one.select("value", "key = ?", ("a",)) == [("3",)]
    assert len(one.select("key")) == 2


@pytest.mark.parametrize("path", [None, "file/cache.sqlite"])
def test_without_a_usable_file_nothing_is_found_and_nothing_stored(tmp_path, path):
    (tmp_path / "file").write_text("")
    cache = SqliteCache(path and tmp_path / path, "cached", COLUMNS)
    assert not cache.replace([("a", "1")])
    assert cache.select("key") == []
    cache.close()


def test_a_damaged_file_is_removed_so_that_the_next_process_starts_a_new_one(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 10)
    assert not SqliteCache(path, "cached", COLUMNS).replace([("a", "1")])
    assert not path.exists()
    assert SqliteCache(path, "cached", COLUMNS).replace([("a", "1")])


def test_a_file_of_another_use_stays_as_it_is(tmp_path):
    path = tmp_path / "cache.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("create table cached (something text)")
    assert SqliteCache(path, "cached", COLUMNS).select("key") == []
    assert path.exists()
