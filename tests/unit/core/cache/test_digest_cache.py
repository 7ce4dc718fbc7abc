import os
import time

import pytest

from tasks.core.cache.digest_cache import Memo, sha256


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    return path


def settle(path, seconds_ago=60):
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, path):
        self.calls += 1
        return sha256(path)


def test_file_that_rests_is_digested_once_by_all_processes(file, tmp_path):
    settle(file)
    count = Counting()
    for _ in range(2):
        with Memo(tmp_path / "memo.sqlite") as memo:
            memo.recall("sha256", file, count)
    assert count.calls == 1


def test_changes_within_one_tick_of_the_file_systems_clock_are_told_apart(file, tmp_path):
    with Memo(tmp_path / "memo.sqlite") as memo:
        stat = file.stat()
        before = memo.digest(file)
        file.write_text("two")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert memo.digest(file) != before


def test_file_with_a_time_in_the_future_is_remembered_too(file):
    settle(file, seconds_ago=-86_400)
    memo, count = Memo(None), Counting()
    for _ in range(2):
        memo.recall("sha256", file, count)
    assert count.calls == 1


def test_torn_memory_costs_only_the_memory(file, tmp_path):
    database = tmp_path / "memo.sqlite"
    database.write_bytes(b"no database at all, but long enough to be looked at" * 10)
    with Memo(database) as memo:
        assert memo.digest(file) == sha256(file)


def test_memory_with_a_torn_page_is_begun_anew(file, tmp_path):
    settle(file)
    database = tmp_path / "memo.sqlite"
    with Memo(database) as memo:
        for n in range(500):
            memo.recall(f"kind {n}", file, lambda path: "x" * 100)
    content = bytearray(database.read_bytes())
    content[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    database.write_bytes(content)
    count = Counting()
    for _ in range(3):
        with Memo(database) as memo:
            memo.recall("sha256", file, count)
    assert count.calls == 2  # the first found it torn, the second began anew
