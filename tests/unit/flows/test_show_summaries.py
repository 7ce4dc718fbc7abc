"""`finetune show STAGE`: the verdict first, sentences with units, JSON for programs."""

import json
from pathlib import Path

import pytest

from flows.cli import main
from flows.commands.show.summaries import LINES, artifact_lines, without_drawings
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache.manifest import File, Manifest
from tasks.pipeline import PIPELINE

TRAINING = {
    "first_loss": 2.5,
    "last_loss": 1.5,
    "step": 20,
    "total_steps": 20,
    "tokens_per_step": 2000,
    "tokens": 40_000,
    "trained": 26_000,
    "seconds": 200.0,
    "tokens_per_s": 200.0,
    "peak_vram_gib": 0.0,
    "step_path": "fast",
    "device": "cpu",
    "optimizer": "adamw",
    "trainable_parameters": 1000,
    "all_parameters": 100_000,
    "trainable_share": 0.01,
    "resumed_from": 8,
    "validation": [
        {"loss": 2.22, "token_accuracy": 0.5, "tokens": 2000},
        {"loss": 1.64, "token_accuracy": 0.6, "tokens": 2000},
    ],
}
REPORT = """# Improved

Loss is better.

| Measured | Base | Tuned |
|---|--:|--:|
| loss, held-out | 2.433 | 1.745 |

## Lineage

Parts of the cache keys:

- base: code 4b1a254a98ed

## How it was measured

- loading: 1 s

## Answers

def secret(): ...
"""


def artifact(home: Path, stage: str, **reports: object) -> tuple[Manifest, Path]:
    """A published artifact with JSON files."""
    key = f"{len(stage):064x}"
    folder = home / "artifacts" / stage / key[:12]
    folder.mkdir(parents=True)
    for name, content in reports.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    made = {"created": "2026-01-02T03:04:05+00:00"}
    files = {"a.bin": File(2048, 0, "")}
    manifest = Manifest(stage, key, {"config": {}}, {}, files, {"line": "the summary"}, 125.0, made)
    manifest.write(folder)
    return manifest, folder


def test_every_stage_has_its_sentences() -> None:
    assert list(LINES) == [stage.name for stage in PIPELINE]


def test_a_training_is_told_in_sentences_with_units(tmp_path: Path) -> None:
    lines = list(artifact_lines(*artifact(tmp_path, "train", training=TRAINING)))
    assert lines[0] == "train: the summary"
    assert "Validation loss 2.220 -> 1.640 nats, token accuracy 50.0 % -> 60.0 %" in lines[1]
    text = "\n".join(lines)
    assert "40,000 tokens, 26,000 of them with loss, in 3 min 20 s (200 tokens/s)." in text
    assert "Resumed from step 8." in text
    assert "created 2026-01-02 03:04:05 UTC in 2 min 5 s; 1 file, 2.0 KiB" in text


@pytest.mark.parametrize(
    ("unit", "head", "train", "left_out"),
    [
        ("row", "  split             rows", "  train               40", ""),
        (
            "file",
            "  split             rows       files",
            "  train               40          83",
            " The files are counted with them.",
        ),
    ],
)
def test_a_split_counts_its_units_unless_they_are_its_rows(
    tmp_path: Path, unit: str, head: str, train: str, left_out: str
) -> None:
    split = {"unit": unit, "units": {"train": 83}, "projects": {"all": 1}}
    manifest, folder = artifact(tmp_path, "prompt", split=split)
    manifest.summary["counts"] = {"train_rows": 40, "over_cap_train": 43}
    lines = list(artifact_lines(manifest, folder))
    assert lines[1:3] == [head, train]
    assert f"Left out: 43 rows, more than prompt.max_train_rows.{left_out}" in lines


def test_an_evaluation_shows_the_tables_of_its_report_with_the_verdict_first(
    tmp_path: Path,
) -> None:
    manifest, folder = artifact(tmp_path, "evaluate")
    (folder / "report.md").write_text(REPORT)
    lines = list(artifact_lines(manifest, folder))
    assert lines[0].strip() == "Improved"
    assert any("loss, held-out" in line and "1.745" in line for line in lines)
    assert not any("secret" in line for line in lines)


def test_a_narrow_terminal_gets_the_table_without_drawn_intervals() -> None:
    table = "| Measured | Base | worse │ better | p |\n|---|--:|:-:|--:|\n"
    row, scales = "| a \\| b | 1 | `··│·●` | 0.1 |", "Ends of the drawn scales: 1."
    assert without_drawings(f"# A\n\n{table}{row}\n\n{scales}\n\n| c | d |") == (
        "# A\n\n| Measured | Base | p |\n|---|--:|--:|\n| a \\| b | 1 | 0.1 |\n\n\n| c | d |"
    )


def test_the_parts_of_keys_are_left_to_explain(tmp_path: Path) -> None:
    manifest, folder = artifact(tmp_path, "evaluate")
    (folder / "report.md").write_text(REPORT)
    text = "\n".join(artifact_lines(manifest, folder))
    assert "4b1a254a98ed" not in text
    assert "Parts of the cache keys: finetune explain STAGE" in text
    assert "loading: 1 s" in text


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a recorded run with one artifact."""
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    manifest, _ = artifact(tmp_path, "train", training=TRAINING)
    record = RunRecord("20260102T030405-0001-7", "cpu_demo", keys={"train": manifest.key})
    record.write(tmp_path / "artifacts")
    return "20260102T030405-0001"


def test_the_artifacts_of_a_run_are_shown_by_its_id(run: str, capsys) -> None:
    assert main(["show", "--run", run]) == 0
    assert capsys.readouterr().out == "train     the summary\n"
    assert main(["show", "train", "--run", "-1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["reports"]["training"]["step"] == 20
    assert shown["files"] == {"a.bin": 2048}


def test_a_stage_that_the_run_has_no_artifact_of_is_named(run: str, capsys) -> None:
    assert main(["show", "merge", "--run", run]) == 2
    assert "Stages with one: train." in capsys.readouterr().err


def test_runs_lists_what_ran_its_cost_and_state_with_ids_that_show_accepts(
    run: str, tmp_path: Path, capsys
) -> None:
    record = RunRecord(
        "20260102T030405-0002-7", "cpu_demo", ("train.max_steps=4",), ended=False, making="train-0"
    )
    record.write(tmp_path / "artifacts")
    assert main(["runs"]) == 0
    _, stopped, done, _ = capsys.readouterr().out.splitlines()
    assert stopped.startswith("20260102T030405-0002")
    assert stopped.endswith("nothing; cpu_demo --set train.max_steps=4; stopped in train")
    assert done.startswith(run)
    assert main(["runs", "--json"]) == 0
    assert [row["id"] for row in json.loads(capsys.readouterr().out)][1] == run


def test_without_a_run_it_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    assert main(["runs"]) == 0
    assert "finetune run" in capsys.readouterr().out
