"""`finetune init`: the profile fits what is in the folder and the machine, and a run can use it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import main
from flows.commands.init import machine
from flows.session import Request, open_session
from tasks.core.cache.decision import Selection
from tasks.core.cache.execute import RunContext, execute
from tasks.core.models.memory_probes import Gpu

MODULE = '''
def total(values, scale=1.0):
    """Return the scaled sum of all values of an order."""
    result = sum(values) * scale
    return result
'''
CHAT = [{"role": "user", "content": "Add."}, {"role": "assistant", "content": "a + b"}]
RECORDS = {
    "messages": {"messages": CHAT},
    "instruction": {"instruction": "Add.", "output": "a + b"},
    "preference": {"prompt": "Add.", "chosen": "a + b", "rejected": "a - b"},
    "text": {"text": "a + b"},
}

GPU = Gpu("NVIDIA GeForce RTX 3080", "1.2", 10.0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, on a machine without a GPU."""
    place = tmp_path / "shop"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(machine.memory_probes, "find_gpu", lambda: None)
    return place


def write_rows(path: Path, record: dict[str, Any], count: int = 4) -> None:
    rows = (json.dumps({**record, "number": number}) for number in range(count))
    path.write_text("".join(f"{row}\n" for row in rows))


def written() -> dict[str, Any]:
    profile: dict[str, Any] = yaml.safe_load(Path("finetune.yaml").read_text())
    return profile


def sources() -> list[dict[str, Any]]:
    assert main(["init"]) == 0
    found: list[dict[str, Any]] = written()["ingest"]["sources"]
    return found


def ingested() -> dict[str, Any]:
    """The summary of ingest by the written profile."""
    with open_session(Request("finetune.yaml", selection=Selection(only=("ingest",)))) as session:
        plan = session.planner.plan_stage("ingest")
        context = RunContext(session.config, session.store, {})
        return dict(execute(plan, context).summary)


def test_a_folder_of_code_and_chats_gives_a_source_for_each_that_ingest_reads(folder, capsys):
    (folder / "shop.py").write_text(MODULE)
    (folder / "package.json").write_text('{"name": "shop"}')
    write_rows(folder / "chats.jsonl", RECORDS["messages"])
    code, chats = sources()
    assert (code["kind"], code["path"]) == ("folder", str(folder))
    assert (chats["kind"], chats["path"]) == ("files", str(folder / "chats.jsonl"))
    assert ingested()["counts"]["read as messages"] == 4
    assert "chats.jsonl: 4 conversations, read as messages" in capsys.readouterr().out


@pytest.mark.parametrize("form", RECORDS)
def test_a_single_data_file_of_any_format_is_a_source(folder, form):
    write_rows(folder / "rows.jsonl", RECORDS[form])
    assert main(["init", "rows.jsonl"]) == 0
    assert ingested()["rows_out"] == 4


def test_columns_of_other_names_are_guessed_where_nothing_else_is_there(folder):
    write_rows(folder / "rows.jsonl", {"task": {"text": "Add."}, "answers": [{"body": "a + b"}]})
    (source,) = sources()
    assert source["columns"] == {"instruction": "task.text", "output": "answers.0.body"}


def test_a_git_repository_is_read_at_its_commit_and_what_is_not_committed_is_named(folder, capsys):
    (folder / "shop.py").write_text(MODULE)
    git = ["git", "-c", "user.name=Example", "-c", "user.email=dev@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Add"]):
        subprocess.run([*git, *words], check=True, cwd=folder)
    (folder / "later.py").write_text(MODULE)
    (source,) = sources()
    assert source["kind"] == "git"
    assert "1 changed or new source files" in capsys.readouterr().out


def test_files_of_submodules_are_not_counted_and_the_submodules_are_named(folder, capsys):
    (folder / "shop.py").write_text(MODULE)
    git = ["git", "-c", "user.name=Example", "-c", "user.email=dev@example.org"]
    start = (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Add"])
    for words in start:
        subprocess.run([*git, *words], check=True, cwd=folder)
    (folder / "inner").mkdir()
    (folder / "inner" / "lib.rs").write_text("fn f() {}\n")
    for words in start:
        subprocess.run([*git, *words], check=True, cwd=folder / "inner")
    # as a submodule is recorded, without a clone
    subprocess.run([*git, "add", "inner"], check=True, cwd=folder, capture_output=True)
    subprocess.run([*git, "commit", "-qm", "Add inner"], check=True, cwd=folder)
    assert main(["init"]) == 0
    shown = capsys.readouterr().out
    assert "submodules are not read (inner); name each as a source" in shown
    assert "code      1 Python (source files" in shown


def test_code_without_a_known_licence_is_kept_as_own_code_and_the_file_says_so(folder):
    (folder / "shop.py").write_text(MODULE)
    assert main(["init"]) == 0
    assert "function" in written()["filter"]["keep_unknown_licence"]
    assert "remove that line for code of others" in Path("finetune.yaml").read_text()


def test_a_licence_in_a_folder_of_licences_is_known(folder, capsys):
    (folder / "LICENSES").mkdir()
    (folder / "LICENSES" / "MIT.txt").write_text("MIT")
    (folder / "a.py").write_text("x = 1\n" * 20)
    sources()
    assert "licence   MIT" in capsys.readouterr().out


def test_infilling_is_left_to_a_base_that_is_known_to_have_tokens_for_it(folder, monkeypatch):
    (folder / "shop.py").write_text(MODULE)
    monkeypatch.setattr(machine.memory_probes, "find_gpu", lambda: GPU)
    (source,) = sources()
    assert "fill" in source["rows"]
    assert main(["init", "--force", "--base", "someone/model"]) == 0
    assert "fill" not in written()["ingest"]["sources"][0]["rows"]
    assert written()["base"] == {"hub_id": "someone/model"}


def test_without_a_gpu_a_small_model_runs_on_the_cpu_and_it_says_so(folder, capsys):
    (folder / "shop.py").write_text(MODULE)
    assert main(["init"]) == 0
    assert written()["hardware"] == {"device": "cpu"}
    assert "SmolLM2-135M" in str(written()["base"])
    assert "no NVIDIA GPU" in capsys.readouterr().out


def test_with_a_gpu_its_memory_less_a_reserve_is_used(folder, monkeypatch):
    monkeypatch.setattr(machine.memory_probes, "find_gpu", lambda: GPU)
    (folder / "shop.py").write_text(MODULE)
    assert main(["init"]) == 0
    assert written()["hardware"] == {"vram_gib": 9.0}
    assert written()["base"] == {"hub_id": machine.HUB_BASE}


def test_a_profile_that_is_there_is_replaced_only_with_force(folder, capsys):
    (folder / "shop.py").write_text(MODULE)
    Path("finetune.yaml").write_text("# mine\n")
    assert main(["init"]) == 2
    assert "finetune init --force" in capsys.readouterr().err
    assert Path("finetune.yaml").read_text() == "# mine\n"
    assert main(["init", "--force"]) == 0


def test_a_folder_with_nothing_to_train_on_is_an_error_that_lists_what_is_read(folder, capsys):
    (folder / "notes.txt").write_text("nothing")
    assert main(["init"]) == 2
    assert ".jsonl" in capsys.readouterr().err
    assert not Path("finetune.yaml").exists()


def test_a_folder_of_pages_alone_is_read_as_text_in_the_languages_that_are_there(folder):
    (folder / "index.html").write_text("<p>x</p>\n")
    (folder / "style.css").write_text("p { color: red; }\n")
    (folder / "schema.sql").write_text("SELECT 1;\n")
    (source,) = sources()
    assert (source["languages"], source["rows"]) == (["css", "html", "sql"], ["files"])


def test_generated_files_are_not_counted_and_headers_of_cpp_are_cpp(folder, capsys):
    (folder / "a.cpp").write_text("int f() { return 1; }\n")
    (folder / "a.h").write_text("int f();\n")
    (folder / "lib.rs").write_text("// @generated by a tool\nfn f() {}\n")
    sources()
    assert "code      2 C++ (source files" in capsys.readouterr().out


def test_fewer_files_than_splits_are_not_split_by_file(folder):
    (folder / "a.py").write_text(MODULE)
    sources()
    assert "split" not in written()["prompt"]


def test_text_files_are_counted_and_the_named_way_to_train_on_text_works(folder, capsys):
    (folder / "guide.md").write_text("# Guide")
    assert main(["init"]) == 2
    said = capsys.readouterr().err
    assert "; not read: .md (1)" in said
    (line,) = re.findall(r"lines like (\{.*?\})", said)
    (folder / "guide.jsonl").write_text(f"{line}\n" * 3)
    assert sources() == [{"kind": "files", "path": str(folder / "guide.jsonl")}]


def test_the_test_split_of_a_data_set_is_named_and_not_trained_on(folder, capsys):
    for name in ("train-00000-of-00001.jsonl", "test-00000-of-00001.jsonl"):
        write_rows(folder / name, RECORDS["instruction"])
    assert [source["path"] for source in sources()] == [str(folder / "train-00000-of-00001.jsonl")]
    assert "not read  test-00000-of-00001.jsonl: a test split" in capsys.readouterr().out


def test_the_commands_after_it_need_no_profile(folder, capsys):
    (folder / "shop.py").write_text(MODULE)
    assert main(["init"]) == 0
    assert main(["plan"]) == 10
    assert capsys.readouterr().err == "profile finetune.yaml (in this folder)\n"


def test_another_folder_and_another_model_are_named_as_documented(folder, tmp_path):
    (folder / "shop.py").write_text(MODULE)
    write_rows(folder / "chats.jsonl", RECORDS["messages"])
    assert main(["init"]) == 0
    assert main(["init", "chats.jsonl", "--force"]) == 0
    assert [source["kind"] for source in written()["ingest"]["sources"]] == ["files"]
    assert main(["init", "--force", "--base", str(tmp_path)]) == 0
    assert written()["base"] == {"path": str(tmp_path)}


def test_artifacts_in_the_folder_are_neither_code_nor_data(folder, monkeypatch):
    monkeypatch.setenv("FINETUNE_HOME", str(folder))
    (folder / "shop.py").write_text(MODULE)
    made = folder / "artifacts/base/0"
    made.mkdir(parents=True)
    (made / "modeling.py").write_text(MODULE)
    write_rows(made / "problems.jsonl", RECORDS["messages"])
    (code,) = sources()
    assert code["kind"] == "folder"
    assert "1 Python" in Path("finetune.yaml").read_text()
    assert ingested()["rows_out"] == 2  # the file and its function


def test_columns_that_no_role_has_are_listed(folder, capsys):
    write_rows(folder / "snippets.jsonl", {"title": "T", "code": "def f(): return 1"})
    sources()
    out, text = capsys.readouterr().out, Path("finetune.yaml").read_text()
    assert "read as text (text: code)\n            columns not used: number, title" in out
    assert "columns not used: number, title; to use them, set `columns`" in text


def test_texts_that_look_like_chats_are_named_with_the_setting_that_reads_them(folder, capsys):
    chat = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    write_rows(folder / "chats.jsonl", {"text": chat})
    sources()
    out, text = capsys.readouterr().out, Path("finetune.yaml").read_text()
    note = "`columns: {messages: text}` reads them as conversations"
    assert note in out and note in " ".join(text.replace("#", "").split())


def test_a_file_whose_records_have_no_row_is_named_with_the_remedy(folder, capsys):
    write_rows(folder / "chats.jsonl", {"messages": [{"role": "user", "content": "q"}]})
    assert main(["init"]) == 2
    assert "Add answers with the role assistant" in capsys.readouterr().err


def test_a_task_with_instances_is_a_file_of_rows(folder):
    instances = [{"input": f"{n}", "output": [f"{n + 1}"]} for n in range(4)]
    task = {"Definition": ["Add one."], "Positive Examples": [{}], "Instances": instances}
    (folder / "task.json").write_text(json.dumps(task, indent=2))
    (source,) = sources()
    assert source["path"].endswith("task.json") and ingested()["rows_out"] == 4
