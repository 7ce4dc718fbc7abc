"""Export, Ollama and the Hugging Face hub, the last two against stand-ins on this machine."""

import base64
import contextlib
import io
import json
import os
import re
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flows.cli import main
from flows.commands import champion
from flows.delivery import delivered_model, hub_upload
from flows.delivery.bundle import bundle_files, write_bundle
from flows.delivery.delivered_model import DeliveredModel, find_model
from tasks.core.errors import PipelineError
from tests.unit.flows.conftest import ANSWER, TASK

NAME = "someone/my-coder"


@pytest.fixture
def model(trained, tmp_path):
    """The trained model as a champion: with adapter, licence and data card."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "licence.json").write_text('{"licence": "MIT"}')
    (tmp_path / "data_card.json").write_text('{"licences": [["MIT", 3]]}')
    return replace(
        find_model(str(trained)),
        adapter=tmp_path / "adapter",
        licence=tmp_path / "licence.json",
        data_card=tmp_path / "data_card.json",
    )


def test_an_exported_folder_loads_in_transformers_and_llama_cpp(model, tmp_path, capsys):
    target = tmp_path / "My Coder"
    assert main(["export", str(target), "--model", str(model.folder.parent)]) == 0
    assert "README.md" in capsys.readouterr().out
    card = (target / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = code.replace("Write a function that returns the n-th Fibonacci number.", TASK)
    with contextlib.chdir(target):
        exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == f"{ANSWER}\n\n### End\n"
    assert "vllm serve . --served-model-name my-coder" in card
    assert "llama-server -m gguf/model-f16.gguf --jinja" in card
    assert "ollama create my-coder -f gguf/model-f16.Modelfile" in card
    xllamacpp = pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install '.[serve]'")
    settings = xllamacpp.CommonParams()
    settings.model.path = re.search(r"-m (\S+)", card)[1]
    settings.n_ctx, settings.verbosity = 256, -1
    with contextlib.chdir(target):
        server = xllamacpp.Server(settings)
    stop = json.loads((target / "prompt_format.json").read_text())["stop"]
    chat = [{"role": "user", "content": TASK}]
    body = {"messages": chat, "max_tokens": 64, "temperature": 0, "stop": stop}
    answer = server.handle_chat_completions(body)
    assert answer["choices"][0]["message"]["content"] == ANSWER


def test_an_archive_holds_the_same_files_as_a_folder(model, tmp_path):
    files = bundle_files(model, "my-coder")
    write_bundle(files, tmp_path / "folder")
    write_bundle(files, tmp_path / "coder-1.0.tar.gz")
    with tarfile.open(tmp_path / "coder-1.0.tar.gz") as archive:
        names = {name.removeprefix("coder-1.0/") for name in archive.getnames()}
        card = archive.extractfile("coder-1.0/README.md").read()
    folder = tmp_path / "folder"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == found == files.keys()
    assert {"adapter/adapter_config.json", "gguf/model-f16.Modelfile", "config.json"} <= found
    assert card == (folder / "README.md").read_bytes()


def test_an_existing_target_is_never_overwritten(model, tmp_path):
    with pytest.raises(PipelineError, match="exists"):
        write_bundle(bundle_files(model, "x"), tmp_path)


def test_a_failed_export_leaves_nothing_behind(model, tmp_path):
    files = {**bundle_files(model, "x"), "z": tmp_path / "missing"}
    for name in ("folder", "file.tar"):
        with pytest.raises(OSError):
            write_bundle(files, tmp_path / name)
        assert not list(tmp_path.glob(f"{name}*"))


@pytest.fixture
def promoted(model, monkeypatch):
    """`finetune promote` has promoted the model."""
    monkeypatch.setattr(champion, "promote_model", lambda *_: 0)
    monkeypatch.setattr(delivered_model, "find_model", lambda: model)
    return model


def stand_in(folder, code=0):
    """A command `ollama` that writes down how it was called."""
    folder.mkdir()
    (folder / "ollama").write_text(
        f'#!/bin/sh\npwd > "$0.called"\necho "$@" >> "$0.called"\nexit {code}\n'
    )
    (folder / "ollama").chmod(0o755)
    return folder / "ollama.called"


def test_promote_creates_the_model_in_ollama(promoted, tmp_path, monkeypatch):
    called = stand_in(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert main(["promote", "--ollama", "my-coder"]) == 0
    folder, arguments = called.read_text().splitlines()
    recipe = promoted.gguf["f16"].with_suffix(".Modelfile")
    assert arguments == f"create my-coder -f {recipe}"
    assert recipe.read_text().startswith("FROM ./model-f16.gguf\n") and folder == str(recipe.parent)


def test_without_ollama_nothing_is_promoted(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(champion, "promote_model", lambda *_: pytest.fail("promoted"))
    assert main(["promote", "--ollama", "my-coder"]) == 2
    error = capsys.readouterr().err
    assert "ollama is not on the PATH" in error and "finetune export FOLDER" in error


def test_a_failure_of_ollama_is_reported_with_its_exit_code(
    promoted, tmp_path, monkeypatch, capsys
):
    stand_in(tmp_path / "bin", code=3)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert main(["promote", "--ollama", "my-coder"]) == 2
    assert "exit code 3" in capsys.readouterr().err


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's API that an upload uses; what was sent is in `server.seen`."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        private = self.server.seen.get("private", True) and not self.server.was_public
        self.answer({"id": NAME, "private": private, "siblings": [], "sha": "0" * 40})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("authorization") != "Bearer hf_test":
            self.answer({"error": "unauthorized"}, 401)
        elif self.path == "/api/repos/create":
            self.server.seen["private"] = json.loads(body)["visibility"] == "private"
            self.answer({"url": f"https://huggingface.co/{NAME}", "id": NAME, "name": NAME})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            made = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [{"path": file["path"], **made} for file in files]})
        elif self.path.endswith("/commit/main"):
            lines = [json.loads(line) for line in body.splitlines()]
            values = [line["value"] for line in lines if line["key"] == "file"]
            self.server.seen["files"] = {v["path"]: base64.b64decode(v["content"]) for v in values}
            url = f"https://huggingface.co/{NAME}/commit/{'1' * 40}"
            self.answer({"commitUrl": url, "commitOid": "1" * 40, "hookOutput": ""})
        else:
            self.answer({"error": self.path}, 404)

    def answer(self, content, status=200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen, server.was_public = {}, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


def test_push_uploads_model_gguf_adapter_and_card_to_a_private_repository(promoted, hub, capsys):
    assert main(["promote", "--push", NAME]) == 0
    assert f"uploaded: https://huggingface.co/{NAME}/commit/{'1' * 40}" in capsys.readouterr().out
    assert hub.seen["private"] is True
    sent = hub.seen["files"]
    assert sent.keys() == bundle_files(promoted, "my-coder").keys()
    assert sent["model.safetensors"] == (promoted.folder / "model.safetensors").read_bytes()
    assert sent["README.md"].startswith(b"---\nlicense: mit\n---\n# Tiny")


def test_a_public_repository_has_to_be_asked_for(promoted, hub):
    assert main(["promote", "--push", NAME, "--public"]) == 0
    assert hub.seen["private"] is False


def test_an_existing_public_repository_is_not_taken_for_a_private_one(promoted, hub, capsys):
    hub.was_public = True
    assert main(["promote", "--push", NAME]) == 2
    assert "exists on the hub and is public" in capsys.readouterr().err
    assert "files" not in hub.seen


def test_without_a_valid_token_the_remedy_is_a_login(promoted, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["promote", "--push", NAME]) == 2
    assert "hf auth login" in capsys.readouterr().err


def test_a_hub_that_cannot_be_reached_is_a_user_error(promoted, hub, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert main(["promote", "--push", NAME]) == 2
    assert "the hub can't be reached" in capsys.readouterr().err


def test_a_base_of_unknown_license_is_not_uploaded(model):
    model.licence.write_text('{"licence": ""}')
    with pytest.raises(PipelineError, match="license of the base model is unknown"):
        hub_upload.check_licences(model, public=False)


def test_rows_of_unknown_license_are_not_published(model):
    model.data_card.write_text('{"licences": [["MIT", 5], ["", 2]]}')
    hub_upload.check_licences(model, public=False)
    with pytest.raises(PipelineError, match="2 of 7 training rows is unknown"):
        hub_upload.check_licences(model, public=True)


@pytest.mark.parametrize("name", ["my-coder", "a/b/c", "a b/c"])
def test_a_name_without_owner_is_rejected_before_anything_is_promoted(name, capsys):
    assert main(["promote", "--push", name]) == 2
    assert "ORG/NAME" in capsys.readouterr().err


def test_a_gguf_file_alone_is_no_bundle(trained):
    model = find_model(str(trained / "gguf" / "model-f16.gguf"))
    with pytest.raises(PipelineError, match="is a GGUF file"):
        bundle_files(model, "x")


def test_the_champion_comes_with_what_it_was_produced_from(tmp_path, monkeypatch):
    from tests.conftest import write_small_profile
    from tests.unit.flows.test_champion import make

    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (base / name).write_text("{}")
    profile = write_small_profile(tmp_path / "small.yaml", base)
    make(profile)
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["promote", "--profile", str(profile)]) == 0
    with pytest.raises(PipelineError, match="has no model"):  # made up: without a model
        find_model()
    folder = (tmp_path / "home" / "artifacts" / "champion").resolve()
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    found: DeliveredModel = find_model()
    assert (found.adapter.name, found.licence.name) == ("adapter.txt", "licence.txt")
    assert found.data_card.name == "data_card.txt"
