"""The whole pipeline on a tiny model and the sample data, through the command line and Prefect."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from flows.cli import main
from tasks.core.cache.code.project_files import WITHOUT_EFFECT
from tasks.core.settings.config import Config
from tasks.core.stage import Stage
from tests.conftest import write_small_profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STAGES = ["base", "ingest", "filter", "prompt", "tokenize", "train", "evaluate", "merge"]


class Reached:
    """Notes which modules of ours have functions that ran within each stage.

    Attributes:
        modules: Stage -> names of modules.
    """

    def __init__(self) -> None:
        self.modules: dict[str, set[str]] = {}

    def within(self, stage, load_run):
        """The stage's `run`, watched."""
        run = load_run(stage)
        seen = set()

        def note(frame, event, argument) -> None:
            if event == "call":
                seen.add(frame.f_globals.get("__name__", ""))

        def watched(*arguments):
            sys.setprofile(note)
            try:
                return run(*arguments)
            finally:
                sys.setprofile(None)
                self.modules[stage.name] = {name for name in seen if name.startswith("tasks.")}

        return watched


@pytest.fixture(scope="module")
def reached():
    return Reached()


@pytest.fixture(scope="module")
def finished(prefect_server, tiny_model, tmp_path_factory, reached):
    """A home in which the pipeline has run once: (profile, home, what the run printed)."""
    folder = tmp_path_factory.mktemp("pipeline")
    profile = write_small_profile(folder / "small.yaml", tiny_model)
    with pytest.MonkeyPatch.context() as patch:
        load_run = Stage.load_run
        patch.setattr(Stage, "load_run", lambda stage: reached.within(stage, load_run))
        patch.setenv("FINETUNE_HOME", str(folder / "home"))
        assert main(["run", "--profile", str(profile)]) == 0
        yield profile, folder / "home"


@pytest.fixture
def home(finished, tmp_path, monkeypatch):
    """The finished home for a test that changes nothing in it."""
    monkeypatch.setenv("FINETUNE_HOME", str(finished[1]))
    return finished


def decisions(profile, capsys, *options):
    capsys.readouterr()
    code = main(["plan", "--profile", str(profile), "--json", *options])
    return code, {p["stage"]: p["decision"] for p in json.loads(capsys.readouterr().out)}


def artifact(home, stage):
    return next(p for p in (home / "artifacts" / stage).iterdir() if len(p.name) == 12)


def test_second_plan_has_nothing_to_do(home, capsys):
    assert decisions(home[0], capsys) == (0, dict.fromkeys(STAGES, "HIT"))


def test_second_run_says_so_and_runs_nothing(home, capsys):
    before = {s: artifact(home[1], s).stat().st_mtime_ns for s in STAGES}
    assert main(["run", "--profile", str(home[0])]) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert {s: artifact(home[1], s).stat().st_mtime_ns for s in STAGES} == before


@pytest.mark.parametrize("stage", STAGES)
def test_key_of_a_stage_holds_all_code_that_ran_in_it(finished, reached, stage):
    manifest = json.loads((artifact(finished[1], stage) / "manifest.json").read_bytes())
    ran = reached.modules[stage]
    outside = {"tasks.core.cache.execute"}  # hands on what a stage says
    unkeyed = {name for name in ran if name.startswith(WITHOUT_EFFECT)}
    assert ran - unkeyed - outside <= manifest["parts"]["code"].keys()
    assert len(ran - unkeyed) > 3


def test_logs_of_the_stages_hold_no_notices_of_libraries_that_no_user_can_act_on(home):
    logs = list((home[1] / "artifacts").glob("*/*/log.txt"))
    assert len(logs) >= len(STAGES)
    for log in logs:
        assert not re.search("FutureWarning|pip install kernels|NoneType: None", log.read_text())


CHANGES = {
    "prompt.template=completion": {"prompt": "RUN", "evaluate": "RUN", "merge": "RUN"},
    "ingest.doctests=true": {"ingest": "RUN"},
    "filter.max_function_lines=100": {"filter": "RUN"},
    "tokenize.loss_on=everything": {"tokenize": "RUN"},
    "train.learning_rate=0.001": {"train": "RUN"},
    "evaluate.max_new_tokens=9": {"evaluate": "RUN"},
    "merge.sample_tokens=128": {"merge": "RUN"},
    "base.licence=MIT": {"base": "RUN"},
    "hardware.workers=1": {},
    "train.log_every=1": {},
}
BEHIND = {stage: STAGES[i + 1 :] for i, stage in enumerate(STAGES)}
BEHIND["base"] = ["tokenize", "train", "evaluate", "merge"]


@pytest.mark.parametrize("change", CHANGES)
def test_one_setting_reruns_its_stage_and_leaves_what_does_not_rest_on_it(home, capsys, change):
    expected = dict.fromkeys(STAGES, "HIT")
    for stage in CHANGES[change]:
        expected.update({behind: "MAYBE" for behind in BEHIND[stage] if expected[behind] == "HIT"})
        expected.update(dict.fromkeys(CHANGES[change], "RUN"))
    _, found = decisions(home[0], capsys, "--set", change)
    assert found == expected


# one change a section -> the stages that then run; the output of a stage in () stays as it was
RAN = {
    "base.licence=MIT": ["base", "merge"],  # the licence file alone is another
    "ingest.doctests=true": ["ingest"],  # (ingest): the sample has no doctests
    "filter.max_function_lines=100": ["filter"],  # (filter): no function is as long
    "prompt.template=completion": ["prompt", "tokenize", "train", "evaluate", "merge"],
    "tokenize.loss_on=everything": ["tokenize", "train", "evaluate", "merge"],
    "train.learning_rate=0.001": ["train", "evaluate", "merge"],
    "evaluate.max_new_tokens=9": ["evaluate", "merge"],
    "merge.sample_tokens=128": ["merge"],
    "hardware.workers=1": [],
}


@pytest.fixture(scope="module")
def changing(finished, tmp_path_factory):
    """A copy of the finished home to which runs with other settings add."""
    copy = tmp_path_factory.mktemp("changing") / "home"
    shutil.copytree(finished[1], copy)
    return finished[0], copy


def test_changes_are_tried_in_every_section():
    for changes in (CHANGES, RAN):
        assert {change.partition(".")[0] for change in changes} == set(Config.model_fields)


@pytest.mark.parametrize("change", RAN)
def test_one_setting_runs_exactly_the_stages_that_depend_on_it(changing, monkeypatch, change):
    profile, home = changing
    monkeypatch.setenv("FINETUNE_HOME", str(home))

    def made():
        return {(stage, p.name) for stage in STAGES for p in (home / "artifacts" / stage).iterdir()}

    before = made()
    assert main(["run", "--profile", str(profile), "--set", change]) == 0
    assert sorted(stage for stage, _ in made() - before) == sorted(RAN[change])


def test_adapter_is_loadable_by_plain_peft(home, tiny_model):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    tuned = PeftModel.from_pretrained(base, artifact(home[1], "train") / "adapter")
    assert tuned.peft_config["default"].r == 8


def test_merged_model_loads_by_itself_and_carries_card_and_tokenizer(home):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = artifact(home[1], "merge") / "model"
    AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|endoftext|>"
    assert "Apache-2.0" in (folder / "README.md").read_text()


def test_report_is_one_page_without_outside_resources(home):
    page = (artifact(home[1], "evaluate") / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_show_prints_a_row_with_its_trained_part(home, capsys):
    assert main(["show", "tokenize", "--row", "0", "--profile", str(home[0])]) == 0
    out = capsys.readouterr().out
    assert "### Output:" in out.partition("[trained]")[0]
    assert "<|endoftext|>" in out.partition("[trained]")[2]


def test_diff_of_two_runs_names_the_setting_and_the_metric(home, capsys):
    main(["run", "--profile", str(home[0])])
    capsys.readouterr()
    assert main(["diff", "-2", "-1"]) == 0
    assert "same: base, ingest" in capsys.readouterr().out


def copy_home(finished, tmp_path, monkeypatch):
    """A copy of the finished home that a test may damage."""
    copy = tmp_path / "home"
    shutil.copytree(finished[1], copy)
    monkeypatch.setenv("FINETUNE_HOME", str(copy))
    return copy


def test_deleted_artifact_is_made_again_and_nothing_else(finished, tmp_path, monkeypatch, capsys):
    copy = copy_home(finished, tmp_path, monkeypatch)
    shutil.rmtree(artifact(copy, "filter"))
    code, found = decisions(finished[0], capsys)
    assert (code, found["filter"], found["prompt"]) == (10, "RUN", "MAYBE")
    assert main(["run", "--profile", str(finished[0])]) == 0
    assert decisions(finished[0], capsys)[0] == 0


def test_edited_artifact_can_be_adopted_and_what_rests_on_it_runs(
    finished, tmp_path, monkeypatch, capsys
):
    copy = copy_home(finished, tmp_path, monkeypatch)
    page = artifact(copy, "evaluate") / "report.html"
    page.write_text(page.read_text() + "<!-- mine -->")
    assert decisions(finished[0], capsys)[1]["evaluate"] == "RUN"
    assert main(["adopt", "evaluate", "--profile", str(finished[0])]) == 0
    assert decisions(finished[0], capsys)[1]["evaluate"] == "HIT"


def test_gc_keeps_what_the_last_run_rests_on(finished, tmp_path, monkeypatch, capsys):
    copy = copy_home(finished, tmp_path, monkeypatch)
    other = artifact(copy, "merge").with_name("0" * 12)
    shutil.copytree(artifact(copy, "merge"), other)
    assert main(["gc", "--keep-last", "1", "--keep-days", "0", "--dry-run"]) == 0
    assert other.exists()
    assert main(["gc", "--keep-last", "1", "--keep-days", "0"]) == 0
    assert not other.exists()
    assert decisions(finished[0], capsys)[0] == 0


BAD = {
    "missing file": (
        ["ingest.sources=[{kind: files, path: /nowhere/x.jsonl}]"],
        "/nowhere/x.jsonl",
    ),
    "every row filtered": (["filter.licences=[0BSD]"], "licence"),
    "no such package": (["ingest.sources=[{kind: packages, names: [nosuchpkg]}]"], "nosuchpkg"),
    "too little room": (["tokenize.max_tokens=8"], "8"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_a_run_with_two_lines_and_code_2(home, capsys, case):
    overrides, word = BAD[case]
    options = [x for o in overrides for x in ("--set", o)]
    assert main(["run", "--profile", str(home[0]), *options]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2, lines
    assert word in lines[0]


def test_a_stage_that_breaks_is_named_with_its_error_and_its_log(
    prefect_server, small_profile, monkeypatch, capsys
):
    def breaks(*_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("tasks.base.run.run", breaks)
    assert main(["run", "--profile", str(small_profile), "--only", "base"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    told, _, log = line.removesuffix(")").partition(" (log: ")
    assert told == "error: stage base failed: ZeroDivisionError: by zero"
    assert "ZeroDivisionError" in Path(log).read_text()


def test_base_folder_without_a_tokenizer_is_refused(home, tiny_model, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    assert main(["run", "--profile", str(home[0]), "--set", f"base.path={bare}"]) == 2
    assert "tokenizer" in capsys.readouterr().err.splitlines()[0]


def test_malformed_line_is_kept_with_file_and_line_and_stops_nothing(home, tmp_path, capsys):
    import pyarrow.parquet as pq

    data = tmp_path / "mine.jsonl"
    good = json.dumps(
        {"instruction": "Add two numbers", "output": "def add(a, b):\n    return a + b"}
    )
    data.write_text(f"{good}\n{{broken\n{good}\n{good}\n")
    source = f"ingest.sources=[{{kind: files, path: {data}, licence: MIT}}]"
    options = ["--profile", str(home[0]), "--set", source, "--only", "ingest"]
    assert main(["run", *options, "--json"]) == 0
    made = {row["stage"]: row for row in json.loads(capsys.readouterr().out)}
    folder = Path(made["ingest"]["folder"])
    rows = pq.read_table(folder / "unreadable.parquet").to_pylist()
    assert [(r["path"], r["line"]) for r in rows] == [("mine.jsonl", 2)]
