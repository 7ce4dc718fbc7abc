"""Untrusted input: profiles run no code, weights are not unpickled, code that comes with a model is
not run without consent, and the server listens on the loopback interface only."""

import ast
import json
import os
import pickle
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.random_model import SMALL_SHAPE
from flows import profiles
from flows.cli import main
from flows.orchestration import serve
from tasks.base import STAGE as BASE
from tasks.core.errors import PipelineError
from tasks.core.models.loading import load_model
from tasks.core.models.pretrained import load_tokenizer
from tasks.core.models.trusted_code import is_trusted, trust
from tasks.core.settings import config as configs
from tasks.core.settings.config import View
from tasks.core.stage import Work
from tasks.training import checkpoints
from tasks.training.fast.model.extract import extract_model
from tasks.training.fast.model.weights import Unsupported
from tasks.training.lora import add_lora

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = sorted(p for name in ("flows", "tasks") for p in (REPOSITORY / name).rglob("*.py"))
LOADERS = {"from_pretrained", "from_config"}
# these never load code that comes with a model
OWN_LOADERS = {"PeftModel", "PeftConfig", "LoraConfig", "Tokenizer"}


class Bomb:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.mkdir [{}]", "!!python/name:os.system", "!exec {}"]
)
def test_a_profile_cannot_run_code(tmp_path, text):
    made = tmp_path / "made"
    profile = tmp_path / "evil.yaml"
    profile.write_text(f"train:\n  seed: {text.format(made)}\n")
    with pytest.raises(PipelineError, match="is not YAML"):
        configs.load(profile)
    profile.write_text("{}")
    with pytest.raises(PipelineError, match="is not YAML"):
        configs.load(profile, [f"train.seed={text.format(made)}"])
    assert not made.exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a/../cpu_demo"])
def test_a_profile_by_name_cannot_leave_the_folder_of_profiles(name):
    with pytest.raises(PipelineError, match="there is no profile"):
        profiles.locate(name)


def calls():
    """(file, name of the object, method, keywords) of every method call in the project."""
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                name = owner.id if isinstance(owner, ast.Name) else ""
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                yield path.name, name, node.func.attr, given


def test_every_loader_gets_trust_remote_code_and_none_gets_a_constant_true():
    found = [c for c in calls() if c[2] == "from_pretrained" and c[1] not in OWN_LOADERS]
    assert len(found) >= 5
    values = {c[3].get("trust_remote_code") for c in found}
    assert values == {"False", "trust_remote_code", "code"}  # or the setting, passed on


def test_trust_is_read_only_from_folders_that_the_pipeline_wrote():
    values = {
        ast.unparse(keyword.value)
        for path in CODE
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "load_model"
        for keyword in node.keywords
        if keyword.arg == "trust_remote_code"
    }
    ours = ("weights", "folder", "self.weights")
    wanted = {f"is_trusted({name})" for name in ours}
    assert values == wanted | {"chosen.is_ours and is_trusted(chosen.weights)"}


def test_nothing_is_unpickled():
    loads = [c for c in calls() if (c[1], c[2]) == ("torch", "load")]
    assert [c for c in loads if c[3].get("weights_only") != "True"] == []
    pattern = re.compile(r"^\s*(import|from) pickle", re.M)
    users = {str(p.relative_to(REPOSITORY)) for p in CODE if pattern.search(p.read_text())}
    # only between the processes of one run, as a process pool does
    assert users <= {
        "flows/orchestration/task_runners.py",
        "tasks/core/decontamination/problems.py",
    }


def test_a_checkpoint_that_holds_an_object_is_not_loaded(tmp_path):
    folder = tmp_path / "step-00000001"
    folder.mkdir()
    (folder / "state.pt").touch()
    torch.save({"values": Bomb(str(tmp_path / "made"))}, folder / "state.pt")
    with pytest.raises(pickle.UnpicklingError):
        checkpoints.load_newest(tmp_path)
    assert not (tmp_path / "made").exists()


@pytest.fixture
def with_code(tiny_model, tmp_path):
    """A model whose configuration names code in its own folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'made')!r})\n")
    for name, classes in (
        ("config.json", {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["own.T", None]}),
    ):
        raw = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(raw | {"auto_map": classes, "model_type": "own"}))
    return folder


def test_code_that_comes_with_a_model_is_not_run(with_code):
    with pytest.raises(PipelineError, match="no model can be loaded"):
        load_model(with_code)
    load_tokenizer(with_code)  # the code that it names is ignored
    assert not (with_code.parent / "made").exists()


MODEL_CODE = """
import os, pathlib
from transformers import LlamaConfig, LlamaForCausalLM
pathlib.Path(os.environ["MADE"]).touch()
class C(LlamaConfig):
    model_type = "own"
class M(LlamaForCausalLM):
    config_class = C
"""


@pytest.fixture
def own_model(tiny_model, tmp_path, monkeypatch):
    """A model unknown to transformers, with its own code, which creates a file when it runs."""
    from transformers import LlamaConfig, LlamaForCausalLM

    monkeypatch.setenv("MADE", str(tmp_path / "made"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    folder = tmp_path / "own"
    shape = {k: v for k, v in SMALL_SHAPE.items() if k != "num_key_value_heads"}
    LlamaForCausalLM(LlamaConfig(**shape, eos_token_id=0)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_model / name).read_bytes())
    (folder / "own.py").write_text(MODEL_CODE)
    raw = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
    (folder / "config.json").write_text(
        json.dumps(raw | {"auto_map": classes, "model_type": "own"})
    )
    return folder


def base_of(folder, tmp_path, **settings):
    """The weights that the stage `base` writes for a model folder."""
    config = configs.check({"base": {"path": str(folder), "licence": "MIT", **settings}})
    work = Work(tmp_path / "out", tmp_path / "scratch")
    work.out.mkdir()
    BASE.load_run()(View(config, BASE.reads, BASE.name), {}, work)
    return work.out / "weights"


def test_code_of_a_model_runs_only_if_the_settings_allow_it(own_model, tmp_path):
    trust(own_model)  # a note in the source folder, which its author can write, is ignored
    with pytest.raises(PipelineError, match=r"set base\.trust_remote_code to true"):
        base_of(own_model, tmp_path)
    assert not (tmp_path / "made").exists()
    shutil.rmtree(tmp_path / "out")
    weights = base_of(own_model, tmp_path, trust_remote_code=True)
    (tmp_path / "made").unlink()  # the stage has run the code to check the model
    with pytest.raises(PipelineError, match="no model can be loaded"):
        load_model(weights)
    assert not (tmp_path / "made").exists()
    model = load_model(weights, trust_remote_code=is_trusted(weights))
    assert type(model).__name__ == "M"
    adapted = add_lora(model, rank=4, alpha=8, dropout=0)
    with pytest.raises(Unsupported, match="code that comes with the model"):
        extract_model(adapted, {})  # the fused step would pass its code over


def test_weights_of_an_untrusted_model_are_not_marked_as_trusted(tiny_model, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    trust(model)
    assert not is_trusted(base_of(model, tmp_path))


def test_a_pickled_adapter_is_not_loaded(small_profile, tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(str(tmp_path / "made"))))
    assert main(["try", "x", "--from", str(tmp_path), "--profile", str(small_profile)]) == 2
    assert "pickled weights are not loaded" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_the_server_listens_on_loopback_only(monkeypatch):
    """As `finetune serve` starts it; a test with a real server checks the open port."""
    started = []

    class Started:
        pid = 1

        def __init__(self, command, **_):
            started.append(command)

    monkeypatch.setattr(subprocess, "Popen", Started)
    monkeypatch.setattr(serve, "answers", lambda url: bool(started))
    monkeypatch.setattr(serve, "set_up", lambda *_: None)
    monkeypatch.setattr(serve.ChildProcesses, "wait", lambda *_: None)
    monkeypatch.setattr(serve.ChildProcesses, "end", lambda _: None)
    assert serve.serve(4299, lambda _: None) == 0
    server = next(command for command in started if "server" in command)
    assert server[server.index("--host") + 1] == "127.0.0.1"


def test_units_and_pages_start_the_server_on_loopback_only():
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    for path in [*pages, *(REPOSITORY / "deploy").iterdir()]:
        for line in path.read_text().splitlines():
            if "server start" in line and "--host" in line:
                assert "--host 127.0.0.1" in line, path
            assert "0.0.0.0" not in line, path
