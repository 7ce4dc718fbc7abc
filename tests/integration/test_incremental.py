"""Filter, prompt and tokenize after edits of the rows: the bytes of a cold run, whatever is known
from earlier runs, in whatever order it lies, and with any number of workers."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import filtering, prompting, tokenization
from tasks.core.rows import row_schema
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.filtering import run as filtering_run
from tasks.filtering import score_rows
from tasks.ingestion.executable import EXECUTABLE
from tasks.ingestion.rows import text_id
from tests.conftest import ingested_row

STAGES = (filtering.STAGE, prompting.STAGE, tokenization.STAGE)
SPLITS = ("train", "validation", "test")
WORDS = ["alpha", "beta", "gamma", "delta", "zeta", "eta", "theta", "iota", "kappa", "mu", "xi"]


def row(number: int, text: str = "") -> dict[str, Any]:
    chance = random.Random(number % 90)  # every tenth row is nearly another one's copy
    body = "\n".join(f"    {chance.choice(WORDS)} = {chance.randrange(99)} * x" for _ in range(12))
    return identified(
        ingested_row(
            number,
            instruction=f"Work out thing number {number}.",
            output=f"def f(x):\n{body}\n    return x + {number}{text}",
            kind="instruction",
            project=f"p{number % 40}",
        )
    )


def identified(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the id that ingest gives it."""
    return row | {"row_id": text_id(row["instruction"], row["input"], row["output"])}


ROWS = [row(number) for number in range(100)]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_model / name).read_bytes())
    (folder / "model_limits.json").write_text(json.dumps({"max_tokens": 1024}))
    return folder


def run_all(
    rows: list[dict[str, Any]], out: Path, shards: Path, tokenizer: Path, workers: int = 1
) -> dict[str, bytes]:
    """All bytes that the three stages write."""
    out.mkdir(parents=True)
    config = check(
        {
            "tokenize": {"window_tokens": 1024, "min_characters_per_token": 0},
            "prompt": {"validation_share": 0.2, "test_share": 0.2},
            "hardware": {"workers": workers},
        }
    )
    inputs = {"base.tokenizer": tokenizer, "ingest.rows": out / "rows.parquet"}
    inputs["ingest.executable"] = out / "executable.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=row_schema.ROWS), inputs["ingest.rows"])
    pq.write_table(EXECUTABLE.empty_table(), inputs["ingest.executable"])
    for stage in STAGES:
        own, scratch = out / stage.name, out / f"{stage.name}.scratch"
        own.mkdir()
        scratch.mkdir()
        work = Work(own, scratch, shards / stage.name, "code")
        stage.load_run()(View(config, stage.reads, stage.name), inputs, work)
        inputs["filter.kept"] = out / "filter" / "kept.parquet"
        inputs |= {f"prompt.{split}": out / f"prompt/{split}.parquet" for split in SPLITS}
        inputs["prompt.split"] = out / "prompt/split.json"
    files = (path for stage in STAGES for path in (out / stage.name).rglob("*"))
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(files) if p.is_file()}


EDITS = st.lists(st.tuples(st.sampled_from(["add", "drop", "edit", "move"]), st.integers(0, 99)))


@settings(max_examples=8)
@given(st.lists(EDITS, min_size=1, max_size=2))
def test_any_edits_give_the_bytes_of_a_cold_run(tmp_path_factory, tokenizer, rounds):
    folder = tmp_path_factory.mktemp("incremental")
    rows = list(ROWS)
    run_all(rows, folder / "first", folder / "shards", tokenizer)
    for number, edits in enumerate(rounds):
        for what, place in edits:
            at = place % len(rows)
            if what == "add":
                rows.insert(at, row(100 + 100 * number + place, f" + {len(rows)}"))
            elif what == "drop" and len(rows) > 60:
                rows.pop(at)
            elif what == "edit":
                rows[at] = identified(rows[at] | {"output": rows[at]["output"] + " + 1"})
            else:
                random.Random(place).shuffle(rows)
        warm = run_all(rows, folder / f"warm{number}", folder / "shards", tokenizer)
        assert warm == run_all(rows, folder / f"cold{number}", folder / f"own{number}", tokenizer)


def test_shards_filled_in_another_order_by_processes_give_the_same_bytes(
    tmp_path, tokenizer, monkeypatch
):
    wanted = run_all(ROWS, tmp_path / "cold", tmp_path / "one", tokenizer)
    monkeypatch.setattr(filtering_run, "ROWS_FOR_PROCESSES", 1)
    monkeypatch.setattr(filtering_run, "BATCH_ROWS", 16)
    run_all(ROWS[::-1], tmp_path / "reversed", tmp_path / "two", tokenizer, workers=2)
    assert run_all(ROWS, tmp_path / "warm", tmp_path / "two", tokenizer) == wanted


def test_only_changed_rows_are_judged_again(tmp_path, tokenizer, monkeypatch):
    run_all(ROWS, tmp_path / "cold", tmp_path / "shards", tokenizer)
    judged: list[int] = []

    def counted(batch: score_rows.RowsToScore) -> Any:
        judged.append(len(batch.rows))
        return score_rows.score_rows(batch)

    monkeypatch.setattr(filtering_run, "score_rows", counted)
    changed = [*ROWS[:50], row(50, " + 1"), *ROWS[51:], row(777)]
    run_all(changed, tmp_path / "warm", tmp_path / "shards", tokenizer)
    assert sum(judged) == 2


def test_a_threshold_about_all_rows_judges_none_again():
    def row_settings(**settings: Any) -> score_rows.RowSettings:
        return score_rows.RowSettings.of(check({"filter": settings}).filter)

    assert row_settings(near_duplicates={"jaccard": 0.9}) == row_settings()
    assert row_settings(max_lines=9) != row_settings()
