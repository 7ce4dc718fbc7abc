"""Runs side by side: what differs, in the terminal and on a page."""

import re

import pytest

from flows.cli import main
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache.manifest import Manifest


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Three runs that share their data and differ in rank; the artifacts folder."""
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    root = tmp_path / "artifacts"

    def publish(stage, key, config, metrics):
        folder = root / stage / key[:12]
        folder.mkdir(parents=True, exist_ok=True)
        parts = {"config": config, "code": {"m": {"f": "1"}}}
        Manifest(stage, key, parts, {}, {}, {"metrics": metrics}, 2.0).write(folder)
        lines = [f'{{"step": {step}, "loss": {3 - step / 10}}}\n' for step in range(1, 6)]
        (folder / "metrics.jsonl").write_text("".join(lines))
        return key

    data = publish("filter", "d" * 64, {"filter.max_lines": 5}, {})
    for number, rank in enumerate((4, 8, 16), 1):
        train = publish("train", f"{number}" * 64, {"train.lora_rank": rank}, {"loss": 1 / rank})
        RunRecord(
            f"20260102T03040{number}-0001-1", "my.yaml", (), {"filter": data, "train": train}
        ).write(root)
    return root


def test_three_runs_have_a_column_each_and_shared_stages_one_line(recorded, capsys):
    assert main(["diff", "-3", "-2", "-1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "train.lora_rank", "4", "8", "16"] in lines
    assert ["train", "loss", "0.25", "0.125", "0.0625"] in lines
    assert lines[-1] == ["same:", "filter"]


def test_one_run_is_no_comparison(recorded, capsys):
    assert main(["diff", "-1"]) == 2
    assert capsys.readouterr().err.splitlines()[1].endswith("`finetune diff -2 -1`.")


def test_an_artifact_that_is_gone_leaves_its_column_empty(recorded, capsys):
    (recorded / "train" / ("2" * 12) / "manifest.json").unlink()
    assert main(["diff", "-3", "-2", "-1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "train.lora_rank", "4", "–", "16"] in lines


def test_the_page_shows_the_runs_with_curves_and_links_to_their_reports(recorded, tmp_path):
    report = recorded / "evaluate" / ("e" * 12)
    report.mkdir(parents=True)
    (report / "report.html").write_text("a report")
    Manifest("evaluate", "e" * 64, {}, {}, {}, {}, 1.0).write(report)
    keys = {"train": "1" * 64, "evaluate": "e" * 64}
    RunRecord("20260102T030409-0001-1", "<b>.yaml", (), keys).write(recorded)
    page = tmp_path / "page.html"
    assert main(["diff", "-4", "-3", "-1", "--page", str(page)]) == 0
    text = page.read_text()
    assert re.search(r'<th scope="row">train.lora_rank</th><td>4</td><td>8</td><td>4</td>', text)
    assert text.count('<polyline class="curve') == 3
    assert f'href="artifacts/evaluate/{"e" * 12}/report.html"' in text
    assert "<b>" not in text


def test_a_page_in_a_folder_that_does_not_exist_is_refused(recorded, tmp_path, capsys):
    assert main(["diff", "-2", "-1", "--page", str(tmp_path / "no" / "page.html")]) == 2
    assert "does not exist" in capsys.readouterr().err
