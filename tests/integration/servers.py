"""Real Prefect servers and workers on loopback, for tests; each is ended by its own id."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ["base", "ingest", "filter", "prompt", "tokenize", "train", "evaluate", "merge"]
POOL = "local-gpu"
PATIENCE_S = 600  # ends a test that hangs; a busy machine needs minutes for what takes seconds


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fresh_environment(folder, port):
    """Environment of a fresh machine: own Prefect home, own FINETUNE_HOME."""
    return os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "FINETUNE_HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


@contextmanager
def process(command, env, log):
    """A process of this test; ended by its id, with all it started."""
    with log.open("ab") as output:
        running = subprocess.Popen(
            command, env=env, cwd=REPOSITORY, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()
            try:
                running.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, 9)
                running.wait(30)


@contextmanager
def server(folder, port=None, **extra):
    """A Prefect server with nothing in it; gives the environment that reaches it."""
    port = port or free_port()
    env = fresh_environment(folder, port) | extra
    log = folder / "server.log"
    prefect = [sys.executable, "-m", "prefect"]
    command = [*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with process(command, env, log) as running:
        wait_until(lambda: healthy(port), log, running)
        yield env


def healthy(port):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2).close()
    except urllib.error.HTTPError as error:
        return error.code == 401  # it wants a password
    except OSError:
        return False
    return True


def wait_until(done, log, running=None, seconds=PATIENCE_S):
    """Wait for `done()`; fails with the log."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return
        if running is not None and running.poll() is not None:
            break
        time.sleep(0.25)
    raise AssertionError(f"waited {seconds} s in vain:\n{log.read_text()}")


def call(env, *command, code=0):
    """Run a command of the project or of Prefect; returns what it printed."""
    done = subprocess.run(
        command,
        env=env,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == code, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def set_up(env):
    """Pool with one slot, deployments: the commands of the documentation, in their order."""
    call(env, "prefect", "work-pool", "create", POOL, "--type", "process")
    call(env, "prefect", "work-pool", "set-concurrency-limit", POOL, "1")
    call(env, "prefect", "--no-prompt", "deploy", "--all")


def api(env, path, body=None, method=None):
    """One request to the server's API."""
    request = urllib.request.Request(
        env["PREFECT_API_URL"] + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json", **_authorization(env)},
        method=method,
    )
    for patience in (1, 2, 4, 0):  # 503: its database is locked, as it can be on a busy machine
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            if error.code != 503 or not patience:
                raise
            time.sleep(patience)
    return None


def _authorization(env):
    password = env.get("PREFECT_API_AUTH_STRING", "")
    return {"authorization": f"Basic {b64encode(password.encode()).decode()}"} if password else {}


def flow_runs(env, **wanted):
    """All flow runs, oldest first."""
    body = {"sort": "START_TIME_ASC", "flow_runs": wanted}
    return api(env, "/flow_runs/filter", body)


def started_runs(env):
    """All flow runs but those that a schedule has made for later, oldest first."""
    return [run for run in flow_runs(env) if run["start_time"]]


def wait_for_end(env, ids, log):
    """The flow runs of these ids, in this order, once all have ended."""
    over = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

    def found():
        return {run["id"]: run for run in flow_runs(env, id={"any_": ids})}

    wait_until(lambda: all(run["state_type"] in over for run in found().values()), log)
    ended = found()
    return [ended[each] for each in ids]


def completed(env, run):
    """The run, which must have ended well; fails with its state and its log."""
    told = [f"{run['state_name']}: {run['state']['message']}", *log_lines(env, run["id"])]
    assert run["state_name"] == "Completed", "\n".join(told)
    return run


def wait_for_log(env, flow_run, text, log):
    """Wait until the log of a flow run, which is sent in batches, contains a text."""
    wait_until(lambda: any(text in line for line in log_lines(env, flow_run)), log)


def task_states(env, flow_run):
    """{stage: name of its state} of one flow run."""
    wanted = {"flow_runs": {"id": {"any_": [flow_run]}}}
    tasks = api(env, "/task_runs/filter", wanted)
    return {task["name"].split(" ")[0]: task["state_name"] for task in tasks}


def log_lines(env, flow_run):
    """What stands in the log of a flow run."""
    wanted = {"logs": {"flow_run_id": {"any_": [flow_run]}}, "sort": "TIMESTAMP_ASC"}
    return [line["message"] for line in api(env, "/logs/filter", wanted)]
