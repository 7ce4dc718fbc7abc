"""`finetune serve-model` on a tiny model that was trained to answer, with the client of OpenAI."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from flows.delivery import engines
from flows.delivery.compute_type import compute_type
from flows.delivery.delivered_model import DeliveredModel, find_model
from flows.delivery.openai_gateway import Gateway
from flows.delivery.request_format import CHAT, COMPLETIONS, RequestError, with_training_format
from flows.delivery.stop_words import StopFilter, cut_stream
from tasks.core.errors import PipelineError
from tasks.core.text import prompt_templates
from tests.unit.flows.conftest import AFTER, ANSWER, BEFORE, FIM, MIDDLE, TASK

REPOSITORY = Path(__file__).resolve().parents[3]


class Server:
    """`finetune serve-model` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "flows.cli", "serve-model", "--port", "0", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        timer = threading.Timer(200, self.process.kill)
        timer.start()
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if " serves until " in line:
                break
        timer.cancel()
        assert " serves until " in self.lines[-1], "".join(self.lines)
        self.url = self.lines[-1].split()[0]

    def stop(self, number=signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output


@pytest.fixture(scope="module")
def server(trained):
    pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install '.[serve]'")
    started = Server("--model", str(trained))
    yield started
    assert started.stop() == (0, "stopped\n")


@pytest.fixture(scope="module")
def client(server):
    openai = pytest.importorskip("openai", reason="needs the client of OpenAI")
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


def tried(folder, task):
    """The answer of `finetune try` to a task."""
    from tasks.core.models.loading import load_model
    from tasks.core.models.pretrained import load_tokenizer
    from tasks.evaluation.generation.sampling import Sampling
    from tasks.evaluation.generation.stream_answer import answer

    model = load_model(folder, quantization="none", device="cpu", dtype="float32")
    prompt = prompt_templates.render("instruction", task)
    marker = prompt_templates.stop_of("instruction")
    sampling = Sampling(0.0, 1.0, 0)
    pieces = answer(model, load_tokenizer(folder), prompt, marker, 64, sampling)
    return "".join(piece for _, piece in pieces)


def test_chat_answers_as_finetune_try_does(client, trained):
    reply = client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": TASK}], max_tokens=64
    )
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.content == tried(trained / "model", TASK) == ANSWER


def test_chat_streams_the_same_answer(client):
    stream = client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": TASK}], max_tokens=64, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(pieces) > 3 and "".join(pieces) == ANSWER


def test_a_formatted_prompt_is_completed(client):
    reply = client.completions.create(
        model="any", prompt=prompt_templates.render("instruction", TASK), max_tokens=64
    )
    assert reply.choices[0].text == ANSWER


def test_a_suffix_is_filled_in(client):
    reply = client.completions.create(model="any", prompt=BEFORE, suffix=AFTER, max_tokens=32)
    assert reply.choices[0].text == MIDDLE
    stream = client.completions.create(
        model="any", prompt=BEFORE, suffix=AFTER, max_tokens=32, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == MIDDLE


def test_llama_cpps_own_infill_endpoint_of_editors_answers(server):
    body = {"input_prefix": BEFORE, "input_suffix": AFTER, "n_predict": 32, "temperature": 0}
    url = server.url.removesuffix("/v1") + "/infill"
    assert json.loads(curl(url, "-d", json.dumps(body)))["content"] == MIDDLE


def settings_on_page(language):
    """The settings in docs/editor.md in one language, for the port of the server."""
    page = (REPOSITORY / "docs" / "editor.md").read_text()
    return re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)[1]


def sent(server, url, body):
    """The answer to a request as an editor sends it; a list of events for a stream."""
    url = url.replace("http://127.0.0.1:8012", server.url.removesuffix("/v1"))
    text = curl(url, "-d", json.dumps(body))
    if not body.get("stream"):
        return json.loads(text)
    events = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(event) for event in events]


def test_llama_vscode_with_the_settings_of_the_page_completes(server):
    settings = json.loads(settings_on_page("json"))
    body = {"input_prefix": BEFORE, "input_suffix": AFTER, "input_extra": [], "prompt": ""}
    body |= {"n_predict": 32, "top_k": 40, "top_p": 0.99, "stream": False, "cache_prompt": True}
    body["samplers"] = ["top_k", "top_p", "infill"]
    answer = sent(server, settings["llama-vscode.endpoint"] + "/infill", body)
    assert answer["content"] == MIDDLE
    url = settings["llama-vscode.endpoint_chat"] + "/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": TASK}], "stream": False, "max_tokens": -1}
    assert sent(server, url, body)["choices"][0]["message"]["content"] == ANSWER


def test_continue_with_the_settings_of_the_page_completes(server):
    completion, chat = yaml.safe_load(settings_on_page("yaml"))["models"]
    template = completion["promptTemplates"]["autocomplete"]
    prompt = template.replace("{{{prefix}}}", BEFORE).replace("{{{suffix}}}", AFTER)
    body = {"prompt": prompt, "stream": True, "n_predict": 32, "temperature": 0.01}
    events = sent(server, completion["apiBase"] + "completion", body)
    assert "".join(event["content"] for event in events) == MIDDLE
    body = {"model": chat["model"], "messages": [{"role": "user", "content": TASK}], "stream": True}
    events = sent(server, chat["apiBase"] + "/chat/completions", body)
    assert "".join(e["choices"][0]["delta"].get("content") or "" for e in events) == ANSWER


def test_tabby_with_the_settings_of_the_page_completes(server):
    settings = tomllib.loads(settings_on_page("toml"))["model"]["completion"]["http"]
    body = {"model": settings["model_name"], "prompt": BEFORE, "suffix": AFTER, "max_tokens": 32}
    body |= {"temperature": 0.1, "stream": True, "presence_penalty": 0.0}
    events = sent(server, settings["api_endpoint"] + "/completions", body)
    assert "".join(event["choices"][0]["text"] for event in events) == MIDDLE


def test_curl_gets_the_models_and_no_page_of_a_browser_gets_an_answer(server):
    models = json.loads(curl(f"{server.url}/models"))
    assert [model["id"] for model in models["data"]] == ["model-f16"]
    preflight = curl(f"{server.url}/completions", "-X", "OPTIONS", "-i")
    assert preflight.startswith("HTTP/1.1 405") and "access-control" not in preflight.lower()
    assert "Invalid host" in curl(f"{server.url}/models", "-H", "Host: elsewhere.example")
    # a page needs no permission to send JSON as text
    page = ["-H", "content-type: text/plain", "-H", "Origin: https://elsewhere.example"]
    body = json.dumps({"prompt": "a", "max_tokens": 1})
    refused = json.loads(curl(f"{server.url}/completions", *page, "-d", body))
    assert (
        refused["error"]["message"]
        == "requests from the page https://elsewhere.example are rejected"
    )


def curl(url, *options, stdin=None):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    header = ["-H", "content-type: application/json"]
    command = ["curl", "-sS", "--noproxy", "*", *header, *options, url]
    done = subprocess.run(command, check=True, capture_output=True, text=True, input=stdin)
    return done.stdout


@pytest.mark.parametrize(
    ("infilling", "prompt"),
    [(("<P>", "<S>", "<M>"), "<P>a<S>b<M>"), (("[SUFFIX]", "[PREFIX]"), "[SUFFIX]b[PREFIX]a")],
)
def test_a_suffix_is_written_with_the_infilling_tokens(infilling, prompt):
    body = {"prompt": "a", "suffix": "b"}
    assert with_training_format(COMPLETIONS, body, [], infilling, None)["prompt"] == prompt


def test_a_suffix_without_infilling_tokens_is_refused():
    with pytest.raises(RequestError, match="no tokens for infilling"):
        with_training_format(COMPLETIONS, {"prompt": "a", "suffix": "b"}, [], None, None)


def test_what_a_request_sets_itself_is_kept():
    body = {"prompt": "a", "stop": ["x"], "temperature": 0.7}
    assert with_training_format(COMPLETIONS, body, ["### End"], FIM, None) == body


def test_a_list_of_one_prompt_is_filled_in_as_the_prompt_alone_is():
    one, listed = (
        with_training_format(COMPLETIONS, {"prompt": p, "suffix": AFTER}, [], FIM, None)
        for p in (BEFORE, [BEFORE])
    )
    assert one == listed


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        (COMPLETIONS, {}, "no prompt"),
        (COMPLETIONS, {"prompt": "a", "stop": 5}, "stop is neither"),
        (COMPLETIONS, {"prompt": "a", "suffix": 5}, "one text each"),
        (COMPLETIONS, {"prompt": ["a", "b"], "suffix": "c"}, "one text each"),
        (CHAT, {"messages": []}, "no list of messages"),
        (CHAT, {"messages": "a"}, "no list of messages"),
        (CHAT, {"messages": ["a"]}, "not an object with a role"),
    ],
)
def test_a_request_that_engines_fail_on_is_refused_with_the_reason(path, body, problem):
    with pytest.raises(RequestError, match=problem):
        with_training_format(path, body, ["### End"], FIM, None)


@pytest.mark.parametrize("content", ["{broken", "[1]", "", "[" * 100_000])
def test_what_is_no_json_object_is_answered_with_an_error_of_the_client(server, content):
    answer = json.loads(curl(f"{server.url}/completions", "-d", "@-", stdin=content))
    assert answer["error"]["code"] == 400 and "the request is not" in answer["error"]["message"]


@pytest.fixture
def stub_engine():
    """An engine on a port, by its answers: a status with a text, or None for no answer."""
    closed, answers, stops = threading.Event(), [], []

    def start(*given):
        answers.extend(given)
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            for answer in answers:
                connection, _ = listener.accept()
                while not connection.recv(65536).endswith(b"}"):
                    pass
                if answer is None:
                    connection.recv(1)  # returns when the gateway closes the connection
                    closed.set()
                else:
                    connection.sendall(answer.encode())
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        import uvicorn

        gateway = Gateway(f"http://127.0.0.1:{listener.getsockname()[1]}", (), None, "coder")
        own = socket.create_server(("127.0.0.1", 0))
        running = uvicorn.Server(uvicorn.Config(gateway.application(), log_level="critical"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [own]}, daemon=True)
        thread.start()
        stops.append((running, thread, listener))
        return f"http://127.0.0.1:{own.getsockname()[1]}", closed

    yield start
    for running, thread, listener in stops:
        running.should_exit = True
        thread.join(10)
        listener.close()


def test_the_engine_stops_when_an_editor_cancels_its_request(stub_engine):
    url, closed = stub_engine(None)
    body = json.dumps({"input_prefix": "a"})
    with pytest.raises(subprocess.CalledProcessError):
        curl(f"{url}/infill", "-m", "1", "-d", body)
    assert closed.wait(10)


def test_an_engine_that_fails_or_ends_is_an_error_in_the_api_s_form(stub_engine):
    failed = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\noops"
    url, _ = stub_engine(failed, "")
    body = ["-d", json.dumps({"prompt": "a"})]
    answers = [json.loads(curl(url + COMPLETIONS, *body))["error"] for _ in range(2)]
    assert [error["code"] for error in answers] == [500, 502]
    assert "the engine failed" in answers[0]["message"]
    assert "start finetune serve-model again" in answers[1]["message"]


def test_the_models_name_is_the_one_that_the_engine_accepts(stub_engine):
    url, _ = stub_engine()
    assert [m["id"] for m in json.loads(curl(url + "/v1/models"))["data"]] == ["coder"]


def test_transformers_answers_as_finetune_try_does(trained):
    openai = pytest.importorskip("openai", reason="needs the client of OpenAI")
    started = Server("--model", str(trained), "--engine", "transformers")
    client = openai.OpenAI(base_url=started.url, api_key="none", max_retries=0)
    request = {"model": "any", "messages": [{"role": "user", "content": TASK}], "max_tokens": 64}
    whole = client.chat.completions.create(**request).choices[0].message.content
    stream = client.chat.completions.create(**request, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    filled = client.completions.create(model="any", prompt=BEFORE, suffix=AFTER, max_tokens=32)
    unlimited = client.chat.completions.create(**{**request, "max_tokens": 4000, "stop": "\0"})
    with pytest.raises(
        openai.BadRequestError, match=r"3,000 tokens, and the window of the model 512"
    ):
        client.completions.create(model="any", prompt="a" * 3000)
    models = [model.id for model in client.models.list()]
    started.stop()
    assert models == [str(trained / "model")]
    assert unlimited.usage.total_tokens <= 512
    assert (whole, "".join(pieces), filled.choices[0].text) == (ANSWER, ANSWER, MIDDLE)


def test_transformers_computes_in_the_number_format_of_finetune_try(trained, monkeypatch):
    from tasks.core.models import device

    folder = trained / "model"
    for kind, dtype in (("cpu", "float32"), ("cuda", "auto")):
        monkeypatch.setattr(device, "pick_device", lambda _, kind=kind: SimpleNamespace(type=kind))
        command = engines.Transformers().command(folder, 1, None)
        assert command[command.index("--dtype") + 1] == compute_type(folder, kind) == dtype


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_stop_words_are_cut_wherever_a_stream_is_divided(size):
    text = "a\n\n## x\n\n### End\n\n### End of it"
    own = StopFilter(["\n\n### End", "### End"])
    assert "".join(own.feed(text[i : i + size]) for i in range(0, len(text), size)) == "a\n\n## x"


def test_a_stream_without_its_last_event_gets_it():
    async def lines():
        yield 'data: {"choices": [{"index": 0, "text": "a"}]}'
        yield ""

    async def made():
        return "".join([line async for line in cut_stream(lines(), ())])

    assert asyncio.run(made()).endswith('"text": "a"}]}\n\ndata: [DONE]\n\n')


def test_the_beginning_of_a_stop_word_at_the_end_is_no_stop_word():
    own = StopFilter(["### End"])
    assert own.feed("a ###") + own.feed("", is_last=True) == "a ###"


def test_a_port_in_use_is_reported_before_the_model_is_loaded(trained, capsys):
    from flows.cli import main

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve-model", "--model", str(trained), "--port", str(port)]) == 2
    assert f"port {port} of 127.0.0.1 is in use" in capsys.readouterr().err


def test_a_port_or_context_that_does_not_exist_is_an_error_of_the_option(trained, capsys):
    from flows.cli import main

    for options in (["--port", "99999"], ["--context", "0"]):
        assert main(["serve-model", "--model", str(trained), *options]) == 2
        assert f"Invalid value for '{options[0]}'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_stop_the_server_as_ctrl_c_does(trained, number):
    pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install '.[serve]'")
    started = Server("--model", str(trained))
    curl(f"{started.url}/models")  # it is running
    assert started.stop(number) == (0, "stopped\n")


def test_a_gguf_file_finds_the_format_of_its_model(trained):
    model = find_model(str(trained / "gguf" / "model-f16.gguf"))
    assert model.stop == ("\n\n### End", "### End") and model.infilling == FIM


def test_an_engine_that_is_not_installed_is_an_error_with_its_installation(monkeypatch, trained):
    monkeypatch.setattr(engines.Vllm, "is_installed", lambda _: False)
    with pytest.raises(PipelineError, match="vllm is not installed") as error:
        engines.pick_engine(find_model(str(trained)), "vllm")
    assert "Install vLLM" in error.value.remedy


def test_a_model_without_gguf_is_not_served_by_llama_cpp(trained):
    model = DeliveredModel("model", trained / "model")
    with pytest.raises(PipelineError, match=r"llama.cpp needs a GGUF file") as error:
        engines.pick_engine(model, "llama.cpp")
    assert "merge.gguf" in error.value.remedy
