import os

import pytest

from tests.known_digests import digests_of_the_code  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def prefect_server():
    """One temporary Prefect server for all tests of a session."""
    from prefect.testing.utilities import prefect_test_harness

    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    with prefect_test_harness(server_startup_timeout=120):
        yield
