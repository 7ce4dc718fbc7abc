"""A failed run reaches a webhook, by Prefect's own block and automation."""

import http.server
import json
import sys
import threading

import pytest

from tests.integration import servers

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1200)]


@pytest.fixture
def webhook():
    """(address, what was posted to it)."""
    posted = []

    class Receives(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receives) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/hook", posted
        listening.shutdown()


def test_a_failed_run_is_told_to_the_webhook_once_and_a_completed_one_is_not(tmp_path, webhook):
    url, posted = webhook
    with servers.server(tmp_path) as env:
        for _ in range(2):  # the second time replaces the first
            servers.call(env, sys.executable, "deploy/notify.py", url)
        flow = servers.api(env, "/flows/", {"name": "finetune"})["id"]
        for name, kind in (("good", "COMPLETED"), ("bad", "FAILED")):
            run = servers.api(env, "/flow_runs/", {"flow_id": flow, "name": name})["id"]
            state = {"type": kind, "message": "no profile is called 'x'"}
            servers.api(env, f"/flow_runs/{run}/set_state", {"state": state, "force": True})
        servers.wait_until(lambda: posted, tmp_path / "server.log")
    assert len(posted) == 1
    assert posted[0]["text"].startswith("finetune Failed: bad: no profile is called 'x' http://")
