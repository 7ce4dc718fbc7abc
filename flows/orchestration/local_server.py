"""Prefect's embedded server, for runs without `finetune serve`."""


def start_local_server() -> None:
    """Start the embedded server, unless PREFECT_API_URL names another one."""
    from prefect.client.orchestration import get_client

    get_client(sync_client=True)
