"""A sweep of four variants of the small profile, through the command line and Prefect."""

import json
import re
import shutil

import pytest

from flows.cli import main
from tasks.core.errors import TrainingError
from tests.conftest import write_small_profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SWEPT = ["--set", "train.learning_rate=0.001,0.01", "--set", "train.lora_rank=4,8"]
SHARED = ["base", "ingest", "filter", "prompt", "tokenize"]


def artifacts(home, stage):
    """Manifests of a stage, by folder."""
    folders = (home / "artifacts" / stage).iterdir()
    return {f: json.loads((f / "manifest.json").read_bytes()) for f in folders}


@pytest.fixture(scope="module")
def swept(prefect_server, tiny_model, tmp_path_factory):
    """(profile, home) after one sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    profile = write_small_profile(folder / "small.yaml", tiny_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HOME", str(folder / "home"))
        assert main(["sweep", "--profile", str(profile), *SWEPT]) == 0
        yield profile, folder / "home"


def page(home):
    (found,) = (home / "artifacts" / "sweeps").glob("*.html")
    return found.read_text()


def test_shared_stages_run_once_and_each_variant_trains_once(swept):
    _, home = swept
    assert {stage: len(artifacts(home, stage)) for stage in SHARED} == dict.fromkeys(SHARED, 1)
    assert len(artifacts(home, "train")) == 4
    assert not (home / "artifacts" / "merge").exists()


def test_the_test_split_is_evaluated_for_the_best_variant_only(swept):
    _, home = swept
    found = artifacts(home, "evaluate")
    splits = [m["parts"]["config"]["evaluate.split"] for m in found.values()]
    assert sorted(splits) == ["test", *["validation"] * 4]
    losses = {
        m["parts"]["inputs"]["train.adapter"]: m["summary"]["metrics"]["tuned_loss"]
        for m in found.values()
        if m["parts"]["config"]["evaluate.split"] == "validation"
    }
    (tested,) = (m for m in found.values() if m["parts"]["config"]["evaluate.split"] == "test")
    assert tested["parts"]["inputs"]["train.adapter"] == min(losses, key=losses.get)


def test_the_same_command_again_runs_nothing(swept, monkeypatch, capsys):
    profile, home = swept
    monkeypatch.setenv("FINETUNE_HOME", str(home))
    monkeypatch.setattr("flows.commands.sweep.run_flow", lambda *_: pytest.fail("a run started"))
    assert main(["sweep", "--profile", str(profile), *SWEPT]) == 0
    assert "4 trainings, 4 of them done; all in the cache" in capsys.readouterr().out


def test_the_printed_command_finds_the_model_of_the_best_variant(swept, monkeypatch, capsys):
    profile, home = swept
    monkeypatch.setenv("FINETUNE_HOME", str(home))
    main(["sweep", "--profile", str(profile), *SWEPT])
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("merge: finetune run ").split()
    assert main(["plan", "--json", *command]) == 10
    plan = {p["stage"]: p["decision"] for p in json.loads(capsys.readouterr().out)}
    assert [stage for stage, decision in plan.items() if decision != "HIT"] == ["merge"]


def test_the_page_shows_all_variants_the_test_result_and_nothing_from_outside(swept):
    text = page(swept[1])
    assert text.count('<th scope="row"') == 4
    assert "intervals\nthat hold for all 6 pairs" in text
    assert text.count('<polyline class="curve') == 4
    assert re.search(r'href="\.\./evaluate/[0-9a-f]{12}/report\.html"', text)
    assert "http" not in text.replace("http-equiv", "")


@pytest.fixture
def another(swept, tmp_path, monkeypatch):
    """Options of a sweep with one variant that has run and one that has not, in a copy."""
    shutil.copytree(swept[1], tmp_path / "home")
    shutil.rmtree(tmp_path / "home" / "artifacts" / "sweeps")
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    options = ["sweep", "--profile", str(swept[0]), "--set", "train.learning_rate=0.01"]
    return [*options, "--set", "train.lora_rank=8,16"], tmp_path / "home"


def test_an_interrupted_sweep_goes_on_with_the_variants_that_are_left(another, monkeypatch):
    options, home = another

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("flows.commands.sweep.run_flow", interrupted)
        assert main(options) == 130
    assert "1 of 2 trainings are finished" in page(home)
    assert main(options) == 0
    assert len(artifacts(home, "train")) == 5
    assert "The best of 2 variants" in page(home)


def test_a_variant_that_diverges_is_reported_and_the_others_go_on(another, monkeypatch, capsys):
    options, home = another

    def diverges(*_):
        raise TrainingError("training diverged at step 3: loss nan", "Lower it.")

    monkeypatch.setattr("flows.commands.sweep.run_flow", diverges)
    assert main(options) == 0
    assert "<li>lora_rank 16: training diverged at step 3: loss nan</li>" in page(home)
    assert "train.lora_rank=8" in capsys.readouterr().out.splitlines()[-1]
