"""Prefect's embedded server, for runs without `finetune serve`.

The server runs in a session of its own. A stop that is sent to the whole process group (Ctrl-C,
systemd, `timeout`, a terminal that closes) reaches only the run, which still reports its final
state; otherwise the report would be retried for minutes.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


def start_local_server() -> None:
    """Start the embedded server, unless PREFECT_API_URL names another one."""
    from prefect.client.orchestration import get_client

    with _children_in_own_session():
        get_client(sync_client=True)


class _DetachedProcess(subprocess.Popen[Any]):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "start_new_session": True})


@contextmanager
def _children_in_own_session() -> Iterator[None]:
    """Start child processes in new sessions; Prefect has no option for it."""
    with patch.object(subprocess, "Popen", _DetachedProcess):
        yield
