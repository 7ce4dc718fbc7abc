import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tasks.core.errors import PipelineError
from tasks.core.system.hub_pins import pinned_commit

COMMIT = "ab" * 20


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback that counts what it is asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if "known" in self.path else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"sha": COMMIT}).encode())

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    yield asked
    server.shutdown()
    server.server_close()


def pin(hub_id, kind="models"):
    return pinned_commit(hub_id, kind, "base.revision", "name a local one")


def test_commit_is_asked_for_once_and_then_read_from_the_file(hub, tmp_path):
    assert pin("me/known") == COMMIT
    assert pin("me/known") == COMMIT
    assert hub == ["/api/models/me/known/revision/main"]
    assert json.loads((tmp_path / "data/pins.json").read_text()) == {"me/known": COMMIT}


def test_unknown_model_names_status_and_what_to_set(hub, tmp_path):
    with pytest.raises(PipelineError, match=r"the hub does not return one \(HTTP 404\)") as error:
        pin("me/gone")
    assert "base.revision" in error.value.remedy
    assert not (tmp_path / "data/pins.json").exists()


def test_a_data_set_of_a_models_name_has_its_own_pin(hub, tmp_path):
    pin("me/known")
    assert pin("me/known", "datasets") == COMMIT
    assert hub[1] == "/api/datasets/me/known/revision/main"
    assert list(json.loads((tmp_path / "data/pins.json").read_text())) == [
        "datasets/me/known",
        "me/known",
    ]


def test_file_that_is_no_object_is_named_and_deleting_it_helps(hub, tmp_path):
    file = tmp_path / "data/pins.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text("[]")
    with pytest.raises(PipelineError, match=r"pins\.json is a JSON list") as error:
        pinned_commit("known/model", "models", "base.revision", "use base.path")
    assert error.value.remedy == "Correct or delete it."
    file.unlink()
    assert pinned_commit("known/model", "models", "base.revision", "use base.path") == COMMIT


def test_without_a_hub_the_commit_of_the_last_artifact_stands_in_and_is_not_pinned(hub, tmp_path):
    """All artifacts are there, and the file of pins is not: nothing asks for one."""
    for number, commit in enumerate(("cd" * 20, "ef" * 20)):
        folder = tmp_path / f"artifacts/base/{number}"
        folder.mkdir(parents=True)
        sources = {"hub": f"me/gone@{commit}", "rows": f"me/rows@{'12' * 20}"}
        (folder / "manifest.json").write_text(json.dumps({"parts": {"sources": sources}}))
        os.utime(folder / "manifest.json", (number, number))
    assert pin("me/gone") == "ef" * 20
    assert pin("me/rows", "datasets") == "12" * 20
    with pytest.raises(PipelineError, match="no commit of me/rows is pinned"):
        pin("me/rows")
    assert not (tmp_path / "data/pins.json").exists()
