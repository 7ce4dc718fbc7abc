import io
import json
import os
import re
import shlex
import subprocess
import sys

import click
import pytest

from flows.cli import COMMANDS, finetune, main
from tasks.core.artifacts import garbage_collection
from tasks.core.cache import code_digest
from tasks.core.errors import PipelineError
from tests.conftest import REPOSITORY

STAGES = ["base", "ingest", "filter", "prompt", "tokenize", "train", "evaluate", "merge"]
DEMO = ("--profile", "cpu_demo")


def test_plan_of_a_fresh_home_has_work_and_lists_the_stages_in_order(small_profile, capsys):
    assert main(["plan", "--profile", str(small_profile), "--json"]) == 10
    plan = json.loads(capsys.readouterr().out)
    assert [entry["stage"] for entry in plan] == STAGES
    assert {entry["decision"] for entry in plan} == {"RUN"}
    assert set(plan[0]) == {"stage", "decision", "causes", "key", "expected_seconds", "notes"}
    (cause,) = plan[0]["causes"]
    assert set(cause) == {"kind", "what", "old", "new", "detail"}
    assert (cause["kind"], cause["what"]) == ("never ran", "base")


def test_a_name_that_the_terminal_cannot_encode_is_shown_in_ascii(monkeypatch, tmp_path):
    monkeypatch.setenv("FINETUNE_HOME", os.fsdecode(bytes(tmp_path) + b"/caf\xe9 \xc3\xa9"))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["gc"]) == 0
    sys.stdout.flush()
    assert rb"/caf\udce9 \xe9/artifacts" in written.getvalue()


def test_an_error_about_a_name_that_is_no_text_can_be_sent_anywhere():
    error = PipelineError(os.fsdecode(b"caf\xe9 is missing"), "Correct \ud800.")
    assert str(error).encode() == b"caf\\xe9 is missing\nCorrect \\ud800."


def test_plan_imports_neither_prefect_nor_torch_nor_pyarrow(small_profile):
    script = (
        "import sys; from flows.cli import main; "
        f"main(['plan', '--profile', {str(small_profile)!r}]); "
        "heavy = {'prefect', 'torch', 'pyarrow', 'transformers', 'numpy', 'tree_sitter'}; "
        "print(heavy & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("arguments", "problem", "remedy"),
    [
        (
            ["plan", "--profile", "cpu_dmo"],
            "there is no profile 'cpu_dmo'",
            "Did you mean cpu_demo?",
        ),
        (["plan", "--profile", "gone.yaml"], "gone.yaml does not exist", "finetune profiles"),
        (
            ["plan", *DEMO, "--set", "train.lora_rnk=4"],
            "train.lora_rnk: unknown field",
            "train.lora_rank",
        ),
        (
            ["plan", *DEMO, "--set", "train.lora_rank=0"],
            "train.lora_rank",
            "Change train.lora_rank",
        ),
        (["plna"], "No such command 'plna'. Did you mean 'plan'?", "finetune --help"),
        (
            ["show", *DEMO, "--row", "0"],
            "--row and --ids need a stage",
            "finetune show tokenize --row 0",
        ),
        (["init", "nowhere"], "nowhere does not exist", "Name a folder or a data file."),
        (["explain", "trian"], "'trian' is not one of", "finetune explain --help"),
        (["gc", "--keep-last", "x"], "'x' is not a valid integer", "finetune gc --help"),
        (["gc", "--keep-last", "-1"], "-1 is not in the range x>=0", "finetune gc --help"),
        (["gc", "--keep-days", "-1"], "-1.0 is not in the range x>=0", "finetune gc --help"),
        (
            ["plan", *DEMO, "--set", "lora_rank"],
            "is not section.field=value",
            "--set train.lora_rank=16",
        ),
    ],
)
def test_user_mistake_is_two_lines_and_exit_code_2(arguments, problem, remedy, capsys):
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert problem in lines[0]
    assert remedy in lines[1]


def test_profiles_are_listed_with_their_first_line(capsys):
    assert main(["profiles"]) == 0
    out = capsys.readouterr().out
    for name in ("cpu_demo", "stable_code_3b_10gb", "stable_code_3b_recipe"):
        assert name in out


def test_show_of_a_stage_that_never_ran_says_what_to_do(small_profile, capsys):
    assert main(["show", "train", "--profile", str(small_profile)]) == 2
    assert "Run `finetune run --from base` first" in capsys.readouterr().err


def test_explain_names_the_key_parts(small_profile, capsys):
    assert main(["explain", "ingest", "--profile", str(small_profile)]) == 0
    out = capsys.readouterr().out
    assert "never ran" in out
    assert "tasks/ingestion: __init__.py" in out


@pytest.mark.slow
def test_a_missing_server_is_reported_in_two_lines(small_profile):
    command = [sys.executable, "-m", "flows.cli", "run", "--profile", str(small_profile)]
    env = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    problem, remedy = done.stderr.splitlines()
    assert problem == "error: no Prefect server answers at http://127.0.0.1:9/api"
    assert "unset PREFECT_API_URL" in remedy


def test_ctrl_c_ends_a_command_in_one_line(small_profile, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.commands.plan.print_plan", interrupted)
    assert main(["plan", "--profile", str(small_profile)]) == 130
    assert capsys.readouterr().err == "stopped; finished stages are kept, run again to continue\n"


def test_every_command_has_a_help_page(capsys):
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert max(map(len, overview.splitlines())) <= 80
    assert "..." not in overview.partition("Commands:")[2]  # every summary fits its line
    for name in COMMANDS:
        assert f"  {name} " in overview
        assert main([name, "--help"]) == 0
        assert f"Usage: finetune {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_every_option_fits_80_columns_and_its_examples_parse(
    name, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    command = finetune.get_command(click.Context(finetune), name)
    assert [p.name for p in command.params if not p.help] == []
    main([name, "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for example in re.findall(r"^    (finetune .*?)(?:  .*)?$", text, re.MULTILINE):
        _, used, arguments = finetune.resolve_command(
            click.Context(finetune), shlex.split(example)[1:]
        )
        used.make_context(used.name, arguments)


def test_the_bare_command_shows_the_help_and_the_version_is_known(capsys):
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("finetune ")


def test_a_negative_number_names_a_run(small_profile, capsys):
    assert main(["pin", "-1"]) == 2
    assert "run" in capsys.readouterr().err.splitlines()[0]


@pytest.fixture
def offline_profile(tmp_path, monkeypatch):
    """A base on a hub that can't be reached, and no pin of it."""
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    sample = f"{REPOSITORY}/data/sample"
    profile = tmp_path / "offline.yaml"
    profile.write_text(
        "base: {hub_id: me/model, licence: MIT}\n"
        f"ingest: {{sources: [{{kind: files, path: {sample}, licence: CC0-1.0}}]}}\n"
    )
    return ("--profile", str(profile))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("plan", "--only", "ingest", "--only", "filter", "--only", "prompt"), 10),
        (("explain", "prompt"), 0),
        (("show", "ingest"), 2),  # never ran
        (("adopt", "filter"), 2),
        (("accept", "filter"), 2),
    ],
)
def test_commands_about_the_data_ask_for_no_pin_of_the_base(offline_profile, command, code, capsys):
    assert main([*command, *offline_profile]) == code
    assert "pinned" not in capsys.readouterr().err
    assert main(["explain", "tokenize", *offline_profile]) == 2
    assert "no commit of me/model is pinned" in capsys.readouterr().err


def test_a_syntax_error_in_a_stage_is_two_lines_with_its_file_and_line(
    small_profile, tmp_path, monkeypatch, capsys
):
    broken = tmp_path / "rules.py"
    broken.write_text("x = 1\ndef rule(:\n")
    found = code_digest.file_of
    monkeypatch.setattr(
        code_digest,
        "file_of",
        lambda module, root: broken if module == "tasks.filtering.run" else found(module, root),
    )
    assert main(["plan", "--profile", str(small_profile)]) == 2
    problem, _ = capsys.readouterr().err.splitlines()
    assert problem == f"error: {broken}, line 2: invalid syntax"


def test_gc_prints_what_it_frees_before_it_removes_anything(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    (tmp_path / "artifacts/filter/0123456789ab").mkdir(parents=True)
    (tmp_path / "artifacts/filter/0123456789ab/kept.parquet").write_bytes(bytes(3 << 20))
    printed = []
    monkeypatch.setattr(
        garbage_collection, "collect", lambda *_: printed.append(capsys.readouterr().out)
    )
    assert main(["gc"]) == 0
    assert "filter/0123456789ab" in printed[0]
    assert "freeing 3.0 MiB: 1 artifact;" in printed[0]


def test_the_readme_names_every_command_with_json():
    offering = [
        name
        for name in COMMANDS
        if any(
            "--json" in p.opts for p in finetune.get_command(click.Context(finetune), name).params
        )
    ]
    sentence = re.search(
        r"^(.*) print JSON with `--json`", (REPOSITORY / "README.md").read_text(), re.M
    )
    assert re.findall(r"`([\w-]+)`", sentence[1]) == offering
