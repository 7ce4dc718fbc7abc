import pytest


@pytest.fixture(scope="session")
def prefect_server():
    """One temporary Prefect server for all tests of a session."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
