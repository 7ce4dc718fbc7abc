"""Warm start from the champion: its rows, its initial weights, its facts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import Windows
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.training import STAGE
from tasks.training.replay import sample_old, write_replay_mix
from tests.unit.training.conftest import SETTINGS, write_split


@given(
    st.lists(st.booleans(), max_size=60),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 9),
)
def test_old_rows_make_up_their_share_or_are_all_taken(
    old: list[bool], share: float, seed: int
) -> None:
    ids = [str(i) for i in range(len(old))]
    chosen = sample_old(ids, np.array(old, dtype=bool), share, seed)
    new = len(old) - sum(old)
    assert set(chosen) <= {i for i, known in enumerate(old) if known}
    assert chosen == sorted(set(chosen))
    wanted = round(new * share / (1 - share)) if new else sum(old)
    assert len(chosen) == min(wanted, sum(old))


def test_one_more_old_row_changes_at_most_one_of_the_chosen() -> None:
    few = {f"r{i}" for i in sample_old([f"r{i}" for i in range(40)], np.arange(40) < 30, 0.3, 1)}
    ids = [f"r{i}" for i in range(30)] + ["more"] + [f"r{i}" for i in range(30, 40)]
    more = {ids[i] for i in sample_old(ids, np.arange(41) < 31, 0.3, 1)}
    assert len(few - more) <= 1


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Path, Path]:
    """A split of 30 rows, and the 20 of them that were there before."""
    rows = pq.read_table(write_split(tmp_path / "now", 30) / "rows.parquet")
    before = write_split(tmp_path / "before", 20)
    pq.write_table(rows.slice(0, 20), before / "rows.parquet")
    return tmp_path / "now", before


def test_all_new_rows_and_the_share_of_old_ones_are_packed_whole(
    grown: tuple[Path, Path], tmp_path: Path
) -> None:
    now, before = grown
    replay = write_replay_mix(now, before, 0.5, 0, tmp_path / "out")
    assert (replay.new, replay.old, replay.known) == (10, 10, 20)
    chosen, whole = Windows.open(tmp_path / "out"), Windows.open(now)
    assert chosen.row_count == 20
    assert int(chosen.tokens.max()) <= int(whole.tokens.max())
    texts = {row.row_ids: row.input_ids.tolist() for row in whole.rows()}
    seen = [name for window in chosen for name in window.row_ids]
    assert set(seen) >= {f"r{i}" for i in range(20, 30)}
    assert len(seen) == len(set(seen)) == 20
    assert all(row.input_ids.tolist() == texts[row.row_ids] for row in chosen.rows())


def test_without_a_new_row_all_are_trained_on_again(
    grown: tuple[Path, Path], tmp_path: Path
) -> None:
    replay = write_replay_mix(grown[0], grown[0], 0.1, 0, tmp_path / "out")
    assert (replay.new, replay.old) == (0, 30)


@pytest.fixture
def go_on(run_stage: Any, bases: dict[str, Path], grown: tuple[Path, Path], tmp_path: Path) -> Any:
    """Train, go on from that with more rows; (facts, adapter before, adapter after)."""

    def run(**changes: Any) -> tuple[dict[str, Any], Path, Path]:
        _, first = run_stage("first", max_steps=10)
        work = Work(tmp_path / "second" / "out", tmp_path / "second" / "scratch")
        for folder in (work.out, work.scratch):
            folder.mkdir(parents=True)
        train = SETTINGS | {"start": {"adapter": "champion", "replay_share": 0.5}} | changes
        inputs = {
            "tokenize.train": grown[0],
            "tokenize.validation": tmp_path / "data-False" / "validation",
            "base.weights": bases["llama"],
            "base.tokenizer": bases["llama"],
            "champion:train.adapter": first.out / "adapter",
            "champion:tokenize.train": grown[1],
        }
        config = check({"train": train, "hardware": {"device": "cpu"}})
        STAGE.load_run()(View(config, STAGE.reads, STAGE.name), inputs, work)
        facts = json.loads((work.out / "training.json").read_text())
        return facts, first.out / "adapter", work.out / "adapter"

    return run


def test_it_begins_where_the_champion_ended(go_on: Any) -> None:
    facts, before, after = go_on(max_steps=1, warmup_steps=0, learning_rate=1e-9, weight_decay=0)
    old, new = (load_file(f / "adapter_model.safetensors") for f in (before, after))
    assert all(abs(old[name] - new[name]).max() < 1e-6 for name in old)
    assert any("lora_B" in name and value.abs().max() > 0 for name, value in old.items())
    assert facts["start"] == "champion"
    assert facts["rows"] == {"new": 10, "old": 10, "known": 20}


def test_an_adapter_of_another_rank_is_refused_with_both_numbers(go_on: Any) -> None:
    with pytest.raises(PipelineError, match="has lora_rank 8, and the settings have 4"):
        go_on(lora_rank=4)
