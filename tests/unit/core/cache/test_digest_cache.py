import mmap
import os
import time

import pytest

from tasks.core.cache import digest_cache
from tasks.core.cache.digest_cache import DigestCache, sha256


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    return path


@pytest.fixture
def settled(monkeypatch):
    """Every file counts as unchanged for long enough."""
    monkeypatch.setattr(digest_cache, "SETTLED_NS", -1)


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, path):
        self.calls += 1
        return sha256(path)


def test_unchanged_file_is_digested_once_by_all_processes(file, tmp_path, settled):
    count = Counting()
    for _ in range(2):
        with DigestCache(tmp_path / "cache.sqlite") as cache:
            cache.recall("sha256", file, count)
    assert count.calls == 1


def test_changes_within_one_tick_of_the_file_systems_clock_are_told_apart(file, tmp_path):
    with DigestCache(tmp_path / "cache.sqlite") as cache:
        stat = file.stat()
        before = cache.digest(file)
        file.write_text("two")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert cache.digest(file) != before


def test_file_with_a_time_in_the_future_is_cached_too(file, settled):
    os.utime(file, (time.time() + 86_400,) * 2)
    cache, count = DigestCache(None), Counting()
    for _ in range(2):
        cache.recall("sha256", file, count)
    assert count.calls == 1


def test_damaged_cache_costs_only_the_cached_values(file, tmp_path):
    database = tmp_path / "cache.sqlite"
    database.write_bytes(b"no database at all, but long enough to be looked at" * 10)
    with DigestCache(database) as cache:
        assert cache.digest(file) == sha256(file)


def test_cache_with_a_damaged_page_is_started_again(file, tmp_path, settled):
    database = tmp_path / "cache.sqlite"
    with DigestCache(database) as cache:
        for n in range(500):
            cache.recall(f"kind {n}", file, lambda path: "x" * 100)
    content = bytearray(database.read_bytes())
    content[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    database.write_bytes(content)
    count = Counting()
    for _ in range(3):
        with DigestCache(database) as cache:
            cache.recall("sha256", file, count)
    assert count.calls <= 2  # the first finds the damage, the second stores again


def rewrite_keeping_size_and_time(path, text):
    stat = path.stat()
    path.write_text(text)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_edit_that_restores_the_modification_time_is_detected(file, tmp_path, settled):
    with DigestCache(tmp_path / "cache.sqlite") as cache:
        before = cache.digest(file)
    time.sleep(0.02)  # a tick of the file system's clock
    rewrite_keeping_size_and_time(file, "two")
    with DigestCache(tmp_path / "cache.sqlite") as cache:
        assert cache.digest(file) == sha256(file) != before


def restore_time(path, stat):
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def unlink_and_create(path):
    """As `unzip -o` and `tar -x` do."""
    stat = path.stat()
    path.unlink()
    path.write_text("two")
    restore_time(path, stat)


def write_in_place(path):
    """As `rsync -t --inplace` does."""
    stat = path.stat()
    with path.open("r+") as file:
        file.write("two")
    restore_time(path, stat)


def replace_by_rename(path):
    """As `rsync -t` does."""
    stat = path.stat()
    new = path.with_name(f".{path.name}.aB3dEf")
    new.write_text("two")
    restore_time(new, stat)
    new.rename(path)


def write_through_a_mapping(path):
    """As an editor of large files does."""
    stat = path.stat()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        content[:] = b"two"
    restore_time(path, stat)


def write_to_another_hard_link(path):
    stat = path.stat()
    other = path.with_name("other.jsonl")
    os.link(path, other)
    other.write_text("two")
    restore_time(other, stat)


@pytest.mark.parametrize(
    "change",
    [
        unlink_and_create,
        write_in_place,
        replace_by_rename,
        write_through_a_mapping,
        write_to_another_hard_link,
    ],
)
def test_new_content_of_equal_size_and_time_is_detected_however_it_came(
    file, tmp_path, settled, change
):
    with DigestCache(tmp_path / "cache.sqlite") as cache:
        before = cache.digest(file)
    time.sleep(0.02)  # a tick of the file system's clock
    change(file)
    with DigestCache(tmp_path / "cache.sqlite") as cache:
        assert cache.digest(file) == sha256(file) != before


def test_file_that_just_got_an_old_time_is_not_cached_yet(file):
    os.utime(file, (1_700_000_000,) * 2)
    cache, count = DigestCache(None), Counting()
    for _ in range(2):
        cache.recall("sha256", file, count)
    assert count.calls == 2


def test_forgotten_file_is_digested_again(file, tmp_path, settled):
    count = Counting()
    with DigestCache(tmp_path / "cache.sqlite") as cache:
        cache.recall("sha256", file, count)
    with DigestCache(tmp_path / "cache.sqlite") as cache:
        cache.forget([file])
        cache.recall("sha256", file, count)
    assert count.calls == 2


def test_pruning_drops_files_that_no_longer_exist(file, tmp_path, settled):
    other = tmp_path / "gone.jsonl"
    other.write_text("x")
    with DigestCache(tmp_path / "cache.sqlite") as cache:
        cache.digest(file)
        cache.digest(other)
    other.unlink()
    with DigestCache(tmp_path / "cache.sqlite") as cache:
        assert (cache.prune(), cache.prune()) == (1, 0)


def test_pipe_is_refused_instead_of_waiting_for_its_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file"):
        DigestCache(None).digest(tmp_path / "pipe")


def test_name_that_is_not_utf_8_is_cached(tmp_path, settled):
    path = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    path.write_text("x")
    count = Counting()
    for _ in range(2):
        with DigestCache(tmp_path / "cache.sqlite") as cache:
            cache.recall("sha256", path, count)
    assert count.calls == 1


def test_values_read_ahead_are_those_of_their_own_files(tmp_path, settled, monkeypatch):
    monkeypatch.setattr(digest_cache, "READ_AHEAD", 2)
    files = [tmp_path / f"{number}.txt" for number in range(6)]
    for file in files:
        file.write_text(file.name)
    with DigestCache(tmp_path / "digests.sqlite") as cache:
        for file in (*files[:2], *files[3:]):
            cache.recall("name", file, lambda path: path.name)
    computed = []
    with DigestCache(tmp_path / "digests.sqlite") as cache:
        for file in files:
            assert cache.recall("name", file, lambda p: computed.append(p) or p.name) == file.name
    assert computed == [files[2]]
