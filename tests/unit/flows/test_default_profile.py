"""The profile of a command that names none."""

from pathlib import Path

import pytest

from flows import profiles
from flows.store_access import current_artifact
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache.decision import RUN, StagePlan
from tasks.core.errors import PipelineError
from tasks.pipeline import PIPELINE


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without runs, and a working folder without a profile."""
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(profiles.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def record(home: Path, **fields: object) -> None:
    RunRecord("20260102T030405-0001-7", "cpu_demo", **fields).write(home / "artifacts")


def test_without_anything_else_it_is_the_built_in_default() -> None:
    assert profiles.default()[:2] == (profiles.DEFAULT, ())
    assert "`finetune init` writes finetune.yaml" in str(profiles.default())


def test_the_last_run_is_repeated_with_its_overrides(home: Path) -> None:
    record(home, overrides=("train.max_steps=4",))
    assert profiles.default()[:2] == ("cpu_demo", ("train.max_steps=4",))
    assert str(profiles.default()) == "profile cpu_demo --set train.max_steps=4 (of the last run)"


def test_a_profile_in_the_working_folder_comes_before_the_last_run(home: Path) -> None:
    record(home)
    Path("finetune.yaml").touch()
    assert profiles.default().profile == str(Path("finetune.yaml").absolute())
    assert str(profiles.default()) == "profile finetune.yaml (in this folder)"


def test_the_variable_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(home)
    Path("finetune.yaml").touch()
    monkeypatch.setenv(profiles.VARIABLE, "stable_code_3b_recipe")
    assert profiles.default().profile == "stable_code_3b_recipe"


def test_a_file_is_recorded_so_that_later_commands_find_it_from_any_folder(tmp_path: Path) -> None:
    assert profiles.absolute("my.yaml") == str(tmp_path / "my.yaml")
    assert profiles.absolute("cpu_demo") == "cpu_demo"


def test_options_repeat_a_run_whose_settings_are_not_the_default_ones(home: Path) -> None:
    Path("finetune.yaml").touch()
    own = str(Path("finetune.yaml").absolute())
    assert profiles.options(own, ()) == ""
    assert profiles.options(own, ["base.path=a b"]) == " --set 'base.path=a b'"


def test_options_name_the_profile_where_the_default_has_overrides(home: Path) -> None:
    record(home, overrides=("train.max_steps=4",))
    assert profiles.options("cpu_demo", ("train.max_steps=4",)) == ""
    assert profiles.options("cpu_demo", ()) == " --profile cpu_demo"


def test_a_missing_artifact_names_the_options_of_the_last_run_that_has_it(home: Path) -> None:
    Path("finetune.yaml").touch()
    record(home, overrides=("train.max_steps=4",), keys={"train": "0" * 64})
    (train,) = (stage for stage in PIPELINE if stage.name == "train")
    with pytest.raises(PipelineError) as raised:
        current_artifact(StagePlan(train, RUN))
    assert "add: --profile cpu_demo --set train.max_steps=4" in raised.value.remedy
