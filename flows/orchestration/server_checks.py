"""Checks of the Prefect server: version, work pool, worker, deployments, runs marked as running
whose process is gone.

Whether a process exists is known only on its own machine, so that runs are checked only if the
server runs on this machine.
"""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no types

from flows.orchestration import serve
from flows.orchestration.child_processes import say
from flows.orchestration.finding import Finding
from flows.store_access import root
from tasks.core.artifacts import runs
from tasks.core.errors import PipelineError

SERVE_IT = "run `finetune serve` (or your prefect-server unit)"
SERVE = SERVE_IT.capitalize()
UNFINISHED = ("RUNNING", "PENDING", "CANCELLING")
BUSY_WAITS_S = (0.5, 1.0, 2.0)
UNCLAIMED_S = 120.0  # time from the claim of a run to the start of its process


def check_server() -> list[Finding]:
    """All checks of Prefect; without a server, the only finding is that there is none."""
    import prefect
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        default = f"http://{serve.HOST}:4200/api"
        where = f"; one runs at {default}" if serve.answers(default) else ""
        return [
            Finding(
                "server",
                f"PREFECT_API_URL is not set{where} (`finetune run` needs no server)",
                f"For schedules and the UI: {SERVE_IT}, then: export PREFECT_API_URL={default}",
                is_note=True,
            )
        ]
    api = Api(url, PREFECT_API_AUTH_STRING.value() or "")
    found: list[Finding] = []
    try:
        found += version_differs(api.call("/admin/version"), prefect.__version__)
        return [*found, *_pool(api), *_runs(api, url)]
    except urllib.error.HTTPError as error:
        return [*found, _refused(url, error.code)]
    except ValueError:
        return [
            Finding(
                "server", f"the program that answers at {url} is not a Prefect server", f"{SERVE}."
            )
        ]
    except OSError as error:
        return [Finding("server", f"no server answers at {url}: {error}", f"{SERVE}.")]


def _refused(url: str, code: int) -> Finding:
    """A server that requires a password, or does not know a request of this version."""
    remedy = "Start a server from this environment (`finetune serve`)."
    if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        remedy = "Set PREFECT_API_AUTH_STRING to the server's PREFECT_SERVER_API_AUTH_STRING."
    return Finding("server", f"the server at {url} answers {code}", remedy)


def version_differs(server: str, here: str) -> list[Finding]:
    """A server whose version differs from that of this environment."""
    if server == here:
        return []
    return [
        Finding(
            "version",
            f"the server is Prefect {server}, this environment has {here}",
            "Start the server from this environment (`finetune serve`), or `make setup` again.",
        )
    ]


class Api:
    """Requests to a Prefect server.

    Args:
        url: Ends in /api.
        secret: "user:password", or "".
    """

    def __init__(self, url: str, secret: str) -> None:
        self.url = url.rstrip("/")
        self._headers = {"content-type": "application/json"}
        if secret:
            self._headers["authorization"] = f"Basic {b64encode(secret.encode()).decode()}"

    def call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """GET, or POST with a body; raises OSError.

        A server whose database is locked answers 503; such a request is repeated.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers)
        for wait in (*BUSY_WAITS_S, None):
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or wait is None:
                    raise
                time.sleep(wait)
        return None


def _pool(api: Api) -> list[Finding]:
    """Work pool, its limit, its worker, and the deployments."""
    name = serve.POOL
    env = dict(os.environ) | serve.SETTINGS | {"PREFECT_API_URL": api.url}
    set_up = partial(serve.set_up, env, name)
    wanted = {"work_pools": {"name": {"any_": [name]}}}
    pools = api.call("/work_pools/filter", wanted)
    if not pools:
        return [
            Finding(
                "pool",
                f"there is no work pool {name}",
                f"prefect work-pool create {name} --type process, then set its limit and deploy.",
                set_up,
            )
        ]
    found = []
    limit = pools[0]["concurrency_limit"]
    if limit != 1:
        found.append(
            Finding(
                "pool",
                f"work pool {name} has the limit {limit}; one GPU needs the limit 1",
                f"prefect work-pool set-concurrency-limit {name} 1",
                partial(serve.set_limit, env, name),
            )
        )
    if pools[0]["is_paused"]:
        found.append(
            Finding("pool", f"work pool {name} is paused", f"prefect work-pool resume {name}")
        )
    workers = api.call(f"/work_pools/{name}/workers/filter", {})
    if not any(worker["status"] == "ONLINE" for worker in workers):
        found.append(
            Finding(
                "worker",
                f"no worker of pool {name} is online ({len(workers)} known)",
                f"prefect worker start --pool {name}, or `finetune serve`.",
            )
        )
    ours = {"flows": {"name": {"any_": ["finetune"]}}}
    deployed = {d["name"] for d in api.call("/deployments/filter", ours)}
    if missing := sorted({"local-gpu", "nightly"} - deployed):
        found.append(
            Finding(
                "deployments",
                f"not deployed: {', '.join(f'finetune/{name}' for name in missing)}",
                "prefect --no-prompt deploy --all",
                set_up,
            )
        )
    return found


def close_dead_runs(url: str) -> None:
    """Give runs whose process is gone their final state; raises OSError without a server.

    Args:
        url: Ends in /api.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING

    for finding in _runs(Api(url, PREFECT_API_AUTH_STRING.value() or ""), url):
        say(finding.problem)
        if finding.fix:
            finding.fix()


def _runs(api: Api, url: str) -> list[Finding]:
    """Runs that the server marks as running and whose process is gone."""
    if urllib.parse.urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
        return []
    wanted = {
        "flows": {"name": {"any_": ["finetune"]}},
        "flow_runs": {"state": {"type": {"any_": list(UNFINISHED)}}},
    }
    known = _processes()
    found = []
    for run in api.call("/flow_runs/filter", wanted):
        process = known.get(run["id"]) or _number(run.get("infrastructure_pid"))
        if _is_alive(process, run):
            continue
        slot = (
            f" and occupies a slot of pool {run['work_pool_name']}" if run["work_pool_name"] else ""
        )
        found.append(
            Finding(
                "run",
                f"run {run['name']} ({run['id'][:8]}) is {run['state_name']}{slot}, "
                f"but its process {process or ''} is gone".replace("  ", " "),
                "Mark it as crashed and run again; finished stages are kept.",
                partial(_close, api, run, process),
            )
        )
    return found


def _processes() -> dict[str, int]:
    """Process id of each flow run on these artifacts, from the run records."""
    found = {}
    for name in runs.ids(root()):
        process = _number(name.rpartition("-")[2])
        with suppress(PipelineError):  # an incomplete record
            flow_run = runs.load(root(), name).flow_run
            if process and flow_run:
                found[flow_run] = process
    return found


def _number(text: str | None) -> int | None:
    """A process id, from "4711" or "host:4711"."""
    digits = (text or "").rpartition(":")[2]
    return int(digits) if digits.isdigit() else None


def _is_alive(process: int | None, run: Mapping[str, Any]) -> bool:
    """Whether the process of a run exists; a later process with the same id does not count.

    A run without a known process counts as alive for `UNCLAIMED_S`.
    """
    since = datetime.fromisoformat(run["state"]["timestamp"])
    if process is None:
        return (datetime.now(UTC) - since).total_seconds() < UNCLAIMED_S
    try:
        found = psutil.Process(process)
        if found.status() == psutil.STATUS_ZOMBIE:
            return False
        started = run["start_time"]
        if started is None:
            return True
        return bool(found.create_time() <= datetime.fromisoformat(started).timestamp() + 1)
    except psutil.NoSuchProcess:
        return False


def _close(api: Api, run: Mapping[str, Any], process: int | None) -> None:
    """Set a run and its tasks to crashed, or to cancelled if they were being cancelled."""
    kind = "CANCELLED" if run["state_type"] == "CANCELLING" else "CRASHED"
    message = f"process {process or ''} is gone".replace("  ", " ")
    state = {"type": kind, "name": kind.capitalize(), "message": message}
    body = {"state": state, "force": True}
    wanted = {
        "flow_runs": {"id": {"any_": [run["id"]]}},
        "task_runs": {"state": {"type": {"any_": list(UNFINISHED)}}},
    }
    for task in api.call("/task_runs/filter", wanted):
        api.call(f"/task_runs/{task['id']}/set_state", body)
    api.call(f"/flow_runs/{run['id']}/set_state", body)


def server_in_order() -> str:
    """The line for the checks that passed, if `check_server` finds nothing."""
    from prefect.settings import PREFECT_API_URL

    return f"{PREFECT_API_URL.value()} answers; work pool, worker and deployments exist"
