"""Every kind of input that users bring goes through the stages with the expected counts."""

import json
from pathlib import Path

import pytest

from tasks.core.errors import PipelineError
from tasks.core.settings.config import View, check
from tasks.core.stage import Stage, Summary, Work
from tasks.filtering import STAGE as FILTER
from tasks.ingestion import STAGE as INGEST
from tasks.prompting import STAGE as PROMPT
from tasks.tokenization import STAGE as TOKENIZE
from tests.unit.cases import CASES
from tests.unit.tokenization.conftest import tokenizer_folder  # noqa: F401  # a fixture

STAGES: tuple[Stage, ...] = (INGEST, FILTER, PROMPT, TOKENIZE)
# the tokenizer of the tests knows few words: its tokens are single characters
SETTINGS = {
    "hardware": {"workers": 1},
    "tokenize": {"window_tokens": 8192, "min_characters_per_token": 0},
    "filter": {"decontamination": {"benchmarks": []}},
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, tmp_path: Path, tokenizer_folder: Path) -> None:  # noqa: F811
    case = CASES[name]
    source = case.write(tmp_path / "in")
    config = check({"ingest": {"sources": [source]}, "prompt": dict(case.prompt), **SETTINGS})
    limits = {"max_tokens": 8192, "model_type": "stablelm", "vocab_size": 300}
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for file in tokenizer_folder.iterdir():
        (tokenizer / file.name).write_bytes(file.read_bytes())
    (tokenizer / "model_limits.json").write_text(json.dumps(limits))
    paths, found = {"base.tokenizer": tokenizer}, dict[str, Summary]()
    for stage in STAGES:
        out = tmp_path / stage.name
        (out / "scratch").mkdir(parents=True)
        view, work = View(config, stage.reads, stage.name), Work(out, out / "scratch")
        if stage == FILTER and case.kept == 0:
            with pytest.raises(PipelineError, match="license unknown"):
                stage.load_run()(view, paths, work)
            return
        found[stage.name] = stage.load_run()(view, paths, work)
        for output in stage.outputs:
            paths |= {f"{stage.name}.{output}": path for path in out.glob(f"{output}*")}
        if stage.name == case.until:
            break
    kept = case.rows if case.kept is None else case.kept
    assert (found["ingest"].rows_out, found["filter"].rows_out) == (case.rows, kept)
    if "tokenize" in found:
        assert all(found["prompt"].metrics[f"{n}_rows"] for n in ("train", "validation", "test"))
        assert sum(found["tokenize"].counts.values()) == 0
