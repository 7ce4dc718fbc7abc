"""A fixture for tests that plan: new homes begin with the digests of the project's code."""

import shutil
from pathlib import Path

import pytest

from tasks.core.cache.code_digest import closure
from tasks.core.cache.digest_cache import DigestCache
from tasks.pipeline import PIPELINE


@pytest.fixture(scope="session", autouse=True)
def digests_of_the_code(tmp_path_factory):
    """They take a second to compute, which each test with a home of its own would spend."""
    seed = tmp_path_factory.mktemp("digests") / "digests.sqlite"

    def opened(database: Path | None) -> DigestCache:
        if database is not None and not database.exists():
            if not seed.exists():
                with DigestCache(seed) as digests:
                    for stage in PIPELINE:
                        closure(stage.run, digests)
            database.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(seed, database)
        return DigestCache(database)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.session.DigestCache", opened)
        patch.setattr("flows.store_access.DigestCache", opened)
        yield
