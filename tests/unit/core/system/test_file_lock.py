from tasks.core.system.file_lock import is_locked, locked, try_lock


def test_a_lock_is_held_inside_the_block_only(tmp_path):
    path = tmp_path / "locks" / "one"
    with locked(path):
        assert is_locked(path)
    assert not is_locked(path)


def test_asking_creates_no_lock_file(tmp_path):
    assert not is_locked(tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_shared_holders_exclude_only_an_exclusive_one(tmp_path):
    path = tmp_path / "one"
    with locked(path, shared=True), locked(path, shared=True), path.open("a") as file:
        assert not try_lock(file)
        assert try_lock(file, shared=True)
