"""The prompt format that ships with a model, against what the training wrote."""

import json
import os
import shutil
import subprocess

import pytest
from transformers import AutoTokenizer, GenerationConfig

from tasks.core.text import prompt_templates
from tasks.core.text.prompt_templates import PromptTemplate
from tasks.core.text.row_encoder import RowEncoder
from tasks.merging.prompt_format.shipped import ship
from tests.unit.merging.test_gguf_export import make_tokenizer

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + CHATML
)
DATED = "{{ 'Today is ' + strftime_now('%d %b %Y') + '.\n' }}" + CHATML
OWN = '<|im_start|>{system}\n\nTask "%}": {instruction}\n\nGiven: {input}\n\nAnswer:\n'
TEMPLATES = {
    "instruction": PromptTemplate("instruction"),
    "instruction with a system text": PromptTemplate("instruction", 'Be "brief".\nThanks, 日本.'),
    "completion": PromptTemplate("completion"),
    "completion with a system text": PromptTemplate("completion", "# Python"),
    "own": PromptTemplate(OWN + "{output}<|im_end|>"),
    "own with a system text": PromptTemplate(OWN + "{output}<|im_end|>", "Be brief."),
    "own without a place for it": PromptTemplate("Q: {instruction}\nA: ", "Be brief."),
    "chat": PromptTemplate("chat"),
    "chat with a system text": PromptTemplate("chat", "Be brief."),
    "jinja": PromptTemplate(DATED, "", "2024-02-29"),
    "jinja without system role": PromptTemplate(NO_SYSTEM),
}
USER = {"role": "user", "content": "Add 1 and 2."}
TURNS = [USER, {"role": "assistant", "content": "3"}, {"role": "user", "content": "And 4?"}]
SYSTEM = {"role": "system", "content": "Answer in French."}


@pytest.fixture
def folder(tmp_path):
    from tokenizers import AddedToken

    special = [AddedToken(name, special=True) for name in ("<|im_start|>", "<|im_end|>")]
    make_tokenizer(tmp_path, added=special)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def chat_ids(folder, messages, **options):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False, **options
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_shipped_chat_template_gives_the_token_ids_of_the_training(folder, name):
    template = TEMPLATES[name]
    text = prompt_templates.render(template, USER["content"])
    trained = RowEncoder(AutoTokenizer.from_pretrained(folder)).prompts([text])[0]
    ship(template, folder)
    assert chat_ids(folder, [USER]) == trained


@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["", "system"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_later_turns_are_written_as_in_the_training(folder, name, system):
    template, messages = TEMPLATES[name], [*system, *TURNS]
    if system and name == "jinja without system role":
        pytest.skip("refuses system messages, as in the training")
    encoder = RowEncoder(AutoTokenizer.from_pretrained(folder))
    if template.is_chat:
        content = {
            "messages": messages
            if system or not template.system
            else [{"role": "system", "content": template.system}, *messages]
        }
        trained = encoder.prompts([prompt_templates.chat_prompt(template, content)])[0]
    else:
        answered = [*messages, {"role": "assistant", "content": "\ufdd5"}]
        segments = prompt_templates.as_segments(template, {"messages": answered})[:-1]
        trained = encoder.prompts(["".join(part["text"] for part in segments)])[0]
    form = ship(template, folder)
    assert chat_ids(folder, messages) == trained
    written = AutoTokenizer.from_pretrained(folder).encode(
        form.layout.prompt(messages, form.system)
    )
    assert written == trained  # what the Modelfile is written from


def test_tools_and_their_results_are_written_as_in_the_training(folder):
    tool = {"function": {"description": "x", "name": "run"}, "type": "function"}
    call = {"function": {"arguments": {"code": "1 + 2"}, "name": "run"}, "type": "function"}
    messages = [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]
    messages += [{"role": "tool", "content": "3"}]
    template = PromptTemplate("instruction", "Be brief.")
    answered = {"messages": [*messages, {"role": "assistant", "content": "x"}], "tools": [tool]}
    segments = prompt_templates.as_segments(template, answered)[:-1]
    expected = "".join(part["text"] for part in segments)
    ship(template, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = tokenizer.apply_chat_template(
        messages, tools=[tool], add_generation_prompt=True, tokenize=False
    )
    assert found == prompt_templates.literal(expected)


def test_a_tokenizer_that_adds_bos_gets_it_once(folder):
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer.save_pretrained(folder)
    template = PromptTemplate("instruction")
    trained = RowEncoder(AutoTokenizer.from_pretrained(folder)).prompts(
        [prompt_templates.render(template, USER["content"])]
    )[0]
    form = ship(template, folder)
    assert trained[0] == 0 and chat_ids(folder, [USER]) == trained
    assert not form.example.startswith("<|endoftext|>")


@pytest.mark.parametrize(
    ("template", "stop", "ends"),
    [
        ("instruction", ["\n\n### End", "### End"], 0),
        ("completion", [], 0),
        ("Q: {instruction}\nA: {output}\n---\n", ["\n---", "---"], 0),
        (OWN + "{output}<|im_end|>\n", ["<|im_end|>"], [0, 301]),
        ("chat", ["<|im_end|>"], [0, 301]),
    ],
)
def test_what_ends_an_answer_ships_with_the_model(folder, template, stop, ends):
    form = ship(PromptTemplate(template), folder)
    assert list(form.stop) == stop
    assert json.loads((folder / "prompt_format.json").read_text())["stop"] == stop
    assert GenerationConfig.from_pretrained(folder).eos_token_id == ends


def test_end_tokens_of_the_base_are_kept(folder):
    GenerationConfig(eos_token_id=[7, 0]).save_pretrained(folder)
    ship(PromptTemplate("chat"), folder)
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [7, 0, 301]


def test_a_template_that_is_no_sequence_of_turns_has_no_layout(folder):
    counted = "{{ messages | length }}" + CHATML
    form = ship(PromptTemplate(counted), folder)
    assert form.layout is None
    assert "can't be written" in form.modelfile("model.gguf")
    assert "TEMPLATE" not in form.modelfile("model.gguf")


def test_infilling_tokens_are_those_of_the_tokenizer(tmp_path):
    from tokenizers import AddedToken

    names = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
    make_tokenizer(tmp_path, added=[AddedToken(name, special=True) for name in names])
    form = ship(PromptTemplate("instruction"), tmp_path)
    assert form.infilling == names
    text = '{{- if .Suffix -}}{{- "<fim_prefix>" -}}{{- .Prompt -}}{{- "<fim_suffix>" -}}'
    assert text in form.modelfile("model.gguf")


def test_without_a_token_before_the_middle_the_suffix_comes_first(tmp_path):
    from tokenizers import AddedToken

    added = [AddedToken(name, special=True) for name in ("[PREFIX]", "[MIDDLE]", "[SUFFIX]")]
    make_tokenizer(tmp_path, added=added)
    form = ship(PromptTemplate("instruction"), tmp_path)
    assert form.infilling == ("[SUFFIX]", "[PREFIX]")
    text = '{{- if .Suffix -}}{{- "[SUFFIX]" -}}{{- .Suffix -}}{{- "[PREFIX]" -}}{{- .Prompt -}}\n'
    assert text in form.modelfile("model.gguf")


def test_the_stop_words_of_a_modelfile_have_line_breaks_and_no_escapes(folder):
    text = ship(PromptTemplate("instruction"), folder).modelfile("model.gguf")
    assert 'PARAMETER stop """\n\n### End"""\n' in text


def test_ollama_answers_greedily_without_its_own_penalty(folder):
    text = ship(PromptTemplate("instruction"), folder).modelfile("model.gguf")
    assert text.endswith("PARAMETER temperature 0\nPARAMETER repeat_penalty 1\n")


def test_files_are_the_same_bytes_when_shipped_twice(folder, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(folder, again, ignore=lambda *_: ["again"])
    for target in (folder, again):
        ship(PromptTemplate("chat", "Be brief."), target)
    for file in again.iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes()


GO = """package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct{ Role, Content string }

type Case struct {
	Template, System, Prompt, Suffix string
	Messages                         []Message
}

func main() {
	var cases []Case
	var found []string
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	for _, c := range cases {
		var text strings.Builder
		if err := template.Must(template.New("").Parse(c.Template)).Execute(&text, c); err != nil {
			panic(err)
		}
		found = append(found, text.String())
	}
	json.NewEncoder(os.Stdout).Encode(found)
}
"""


@pytest.mark.slow
def test_the_template_of_a_modelfile_writes_the_same_in_the_language_of_ollama(folder, tmp_path):
    if shutil.which("go") is None:
        pytest.skip("Go is not installed, in whose language Ollama's templates are written")
    cases, expected = [], []
    for name, template in TEMPLATES.items():
        copy = tmp_path / name.replace(" ", "_")
        copy.mkdir()
        for file in folder.iterdir():
            if file.is_file():
                shutil.copyfile(file, copy / file.name)
        form = ship(template, copy)
        text = form.modelfile("model.gguf").split('"""')[1]
        for system in (form.system, "Answer in French."):
            roles = [{"Role": m["role"], "Content": m["content"]} for m in TURNS]
            cases.append({"Template": text, "System": system, "Messages": roles})
            expected.append(form.layout.prompt(TURNS, system))
    (tmp_path / "main.go").write_text(GO)
    done = subprocess.run(
        ["go", "run", str(tmp_path / "main.go")],
        input=json.dumps(cases),
        env={**os.environ, "GOCACHE": str(tmp_path / "cache"), "GOFLAGS": "-mod=mod"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
