"""The lineage is read from the manifests beside what the evaluation is given."""

from pathlib import Path

from tasks.core.cache.manifest import Manifest
from tasks.evaluation.report import lineage


def publish(folder: Path, stage: str, inputs: dict[str, str]) -> Path:
    folder.mkdir()
    parts = {"inputs": inputs, "config": {f"{stage}.seed": 7}, "env": {"torch": "2.0"}}
    made = {"created": "2026-01-01", "commit": "abc"}
    Manifest(stage, "k" * 64, parts, {}, {}, {"line": "done"}, 1.5, made).write(folder)
    return folder / "rows.parquet"


def test_stages_come_in_the_order_in_which_they_rest_on_each_other(tmp_path: Path) -> None:
    train = publish(tmp_path / "t", "train", {"prompt.train": "d" * 64})
    prompt = publish(tmp_path / "p", "prompt", {"filter.kept": "e" * 64})
    kept = publish(tmp_path / "f", "filter", {})
    found = lineage.trace([train, prompt, prompt, kept, tmp_path / "elsewhere" / "x"])
    assert [origin.stage for origin in found] == ["filter", "prompt", "train"]


def test_the_parts_of_a_key_are_named_and_digests_cut_short(tmp_path: Path) -> None:
    (found,) = lineage.trace([publish(tmp_path / "t", "train", {"prompt.train": "d" * 64})])
    assert (found.key, found.line, found.seconds) == ("k" * 12, "done", 1.5)
    assert dict(found.parts) == {
        "input prompt.train": "d" * 12,
        "version of torch": "2.0",
        "train.seed": "7",
    }
