"""`finetune serve-model` on a tiny model that was trained to answer, with the client of OpenAI."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.delivery import engines
from flows.delivery.delivered_model import DeliveredModel, find_model
from flows.delivery.openai_gateway import COMPLETIONS, SuffixError, with_training_format
from flows.delivery.stop_words import StopFilter
from tasks.core.errors import PipelineError
from tasks.core.text import prompt_templates
from tasks.core.text.prompt_templates import PromptTemplate

TASK, ANSWER = "Add two numbers.", "def add(a, b):\n    return a + b"
BEFORE, MIDDLE, AFTER = "def sub(a, b):\n", "    return a - b\n", "\nprint(sub(3, 1))\n"
FIM = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with model/ and gguf/, as the stage merge writes them."""
    import torch
    from tokenizers import AddedToken
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tasks.core.text.row_encoder import RowEncoder
    from tasks.merging.prompt_format.shipped import ship
    from tests.unit.merging.test_gguf_export import export, make_model, make_tokenizer

    root = tmp_path_factory.mktemp("trained")
    folder = make_model(root / "model", max_position_embeddings=512)
    make_tokenizer(folder, added=[AddedToken(name, special=True) for name in FIM])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = PromptTemplate("instruction")
    rows = RowEncoder(AutoTokenizer.from_pretrained(folder)).pairs(
        [
            prompt_templates.render(template, TASK),
            prompt_templates.fill_prompt(BEFORE, AFTER),
        ],
        [prompt_templates.complete(template, ANSWER), MIDDLE],
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        for row in rows:
            ids = torch.tensor([row.ids])
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    form = ship(template, folder)
    (root / "gguf").mkdir()
    file = shutil.move(export(folder), root / "gguf" / "model-f16.gguf")
    file.with_suffix(".Modelfile").write_text(form.modelfile(file.name))
    return root


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

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
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


def test_curl_gets_the_models_and_no_page_of_a_browser_gets_an_answer(server):
    models = json.loads(curl(f"{server.url}/models"))
    assert [model["id"] for model in models["data"]] == ["model-f16"]
    preflight = curl(f"{server.url}/completions", "-X", "OPTIONS", "-i")
    assert preflight.startswith("HTTP/1.1 405") and "access-control" not in preflight.lower()
    assert "Invalid host" in curl(f"{server.url}/models", "-H", "Host: elsewhere.example")


def curl(url, *options):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    header = ["-H", "content-type: application/json"]
    command = ["curl", "-sS", "--noproxy", "*", *header, *options, url]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_suffix_without_infilling_tokens_is_refused():
    with pytest.raises(SuffixError, match="no tokens for infilling"):
        with_training_format(COMPLETIONS, {"prompt": "a", "suffix": "b"}, [], None, None)


def test_what_a_request_sets_itself_is_kept():
    body = {"prompt": "a", "stop": ["x"], "temperature": 0.7}
    assert with_training_format(COMPLETIONS, body, ["### End"], FIM, None) == body


def test_transformers_answers_as_finetune_try_does(trained):
    openai = pytest.importorskip("openai", reason="needs the client of OpenAI")
    started = Server("--model", str(trained), "--engine", "transformers")
    client = openai.OpenAI(base_url=started.url, api_key="none", max_retries=0)
    request = {"model": "any", "messages": [{"role": "user", "content": TASK}], "max_tokens": 64}
    whole = client.chat.completions.create(**request).choices[0].message.content
    stream = client.chat.completions.create(**request, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    filled = client.completions.create(model="any", prompt=BEFORE, suffix=AFTER, max_tokens=32)
    started.stop()
    assert (whole, "".join(pieces), filled.choices[0].text) == (ANSWER, ANSWER, MIDDLE)


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_stop_words_are_cut_wherever_a_stream_is_divided(size):
    text = "a\n\n## x\n\n### End\n\n### End of it"
    own = StopFilter(["\n\n### End", "### End"])
    assert "".join(own.feed(text[i : i + size]) for i in range(0, len(text), size)) == "a\n\n## x"


def test_the_beginning_of_a_stop_word_at_the_end_is_no_stop_word():
    own = StopFilter(["### End"])
    assert own.feed("a ###") + own.feed("", is_last=True) == "a ###"


def test_a_port_in_use_is_reported_before_the_model_is_loaded(trained, capsys):
    import socket

    from flows.cli import main

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve-model", "--model", str(trained), "--port", str(port)]) == 2
    assert f"port {port} of 127.0.0.1 is in use" in capsys.readouterr().err


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
