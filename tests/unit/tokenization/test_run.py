import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import IGNORED, Windows
from tasks.core.models.pretrained import read_tokenizer
from tasks.core.rows import row_schema
from tasks.core.settings.config import View, check
from tasks.core.stage import Summary, Work
from tasks.core.text.row_encoder import RowEncoder
from tasks.tokenization import STAGE
from tasks.tokenization.run import SPLITS, row_limit, run

Texts = list[tuple[str, str]]
TEXTS: Texts = [(f"Write {i}.\n", "x = " + "1 + " * (i % 7) + f"{i}\n\n### End") for i in range(60)]
Go = Callable[..., tuple[Summary, Path]]


def write_prompts(file: Path, texts: Texts, kind: str = "") -> Path:
    columns = [
        [f"{file.stem}{i}" for i in range(len(texts))],
        ["p"] * len(texts),
        [prompt for prompt, _ in texts],
        [completion for _, completion in texts],
        [""] * len(texts),
        [kind] * len(texts),
    ]
    pq.write_table(pa.table(columns, schema=row_schema.PROMPTS), file)
    return file


@pytest.fixture
def go(tmp_path: Path, tokenizer_folder: Path) -> Go:
    def call(
        name: str = "out", texts: Texts = TEXTS, held_out: Texts = TEXTS[:5], **settings: Any
    ) -> tuple[Summary, Path]:
        out, scratch = tmp_path / name, tmp_path / f"{name}.scratch"
        out.mkdir()
        scratch.mkdir()
        inputs = {
            f"prompt.{split}": write_prompts(
                tmp_path / f"{split}.parquet", texts if split == "train" else held_out
            )
            for split in SPLITS
        }
        inputs["base.tokenizer"] = tokenizer_folder
        inputs["filter.kept"] = tmp_path / "kept.parquet"
        pq.write_table(pa.table({"row_id": ["a"], "licence": ["MIT"]}), inputs["filter.kept"])
        inputs["prompt.split"] = tmp_path / "split.json"
        split = {"unit": "project", "units": {"train": 1}, "projects": {"all": 1}}
        inputs["prompt.split"].write_text(json.dumps(split))
        view = View(
            check({"tokenize": {"window_tokens": 128, "min_characters_per_token": 0} | settings}),
            STAGE.reads,
        )
        return run(view, inputs, Work(out, scratch)), out

    return call


def test_windows_reproduce_the_rows_with_prompt_masked_and_eos_trained(
    go: Go, tokenizer_folder: Path
) -> None:
    _, out = go()
    encoder = RowEncoder(read_tokenizer(tokenizer_folder))
    wanted = {
        f"train{i}": encoder.pairs([prompt], [completion])[0]
        for i, (prompt, completion) in enumerate(TEXTS)
    }
    seen = []
    for window in Windows.open(out / "train"):
        for row, start, end in zip(
            window.row_ids, window.cu_seqlens[:-1], window.cu_seqlens[1:], strict=True
        ):
            ids, labels = window.input_ids[start:end].tolist(), window.labels[start:end].tolist()
            masked = wanted[row].prompt_tokens
            assert ids == wanted[row].ids
            assert labels == [IGNORED] * masked + ids[masked:]
            assert labels[-1] == encoder.eos
            assert window.position_ids[start:end].tolist() == list(range(end - start))
            seen.append(row)
    assert sorted(seen) == sorted(wanted)


def test_loss_on_everything_leaves_out_only_each_first_token(go: Go) -> None:
    _, out = go(loss_on="everything")
    for window in Windows.open(out / "train"):
        assert (window.labels == IGNORED).nonzero()[0].tolist() == window.cu_seqlens[:-1].tolist()


def test_too_long_rows_are_dropped_whole_and_counted(go: Go) -> None:
    summary, out = go(texts=[*TEXTS, ("Write.", "y" * 101)], max_tokens=100)
    assert summary.counts["train_too_long"] == 1
    assert "train60" not in {w.row_ids[0] for w in Windows.open(out / "train").rows()}


def test_a_row_of_just_the_limit_is_kept(go: Go, tokenizer_folder: Path) -> None:
    longest = max(
        len(row.ids)
        for row in RowEncoder(read_tokenizer(tokenizer_folder)).pairs(*zip(*TEXTS, strict=True))  # type: ignore[arg-type]
    )
    assert go("at", max_tokens=longest)[0].counts == {}
    assert go("below", max_tokens=longest - 1)[0].counts["train_too_long"] > 0


def test_a_row_without_a_target_is_dropped_and_counted(go: Go) -> None:
    summary, _ = go(texts=[*TEXTS, ("Write nothing.", "")])
    assert summary.counts == {"train_empty_completion": 1}


def test_a_split_with_only_too_long_rows_tells_both_numbers(go: Go) -> None:
    with pytest.raises(
        PipelineError, match=r"validation: none of 1 .* 209 to 209 tokens, .* is 100"
    ):
        go(held_out=[("", "\x07" * 208)], max_tokens=100)


def test_the_audit_counts_what_is_trained_and_what_is_padding(go: Go) -> None:
    summary, out = go()
    found = json.loads((out / "audit.json").read_text())["train"]
    windows = list(Windows.open(out / "train"))
    assert found["rows"] == 60
    assert found["trained_tokens"] == sum(w.trained_tokens for w in windows)
    assert found["tokens"] == sum(len(w.input_ids) for w in windows)
    assert found["padding_share"] == round(1 - found["tokens"] / (128 * len(windows)), 6)
    assert summary.rows_out == 70


def test_the_preflight_counts_what_the_files_hold(go: Go) -> None:
    _, out = go(texts=[*TEXTS, ("Write.", "y" * 101)], max_tokens=100)
    found = json.loads((out / "audit.json").read_text())["preflight"]
    windows = list(Windows.open(out / "train"))
    assert (found["rows"], found["rows_too_long"], found["windows"]) == (60, 1, len(windows))
    assert found["tokens"] == sum(len(w.input_ids) for w in windows)


def test_the_same_prompts_give_the_same_bytes(go: Go) -> None:
    files = [
        sorted((p.name, p.read_bytes()) for p in go(name)[1].rglob("*.*")) for name in ("a", "b")
    ]
    assert files[0] == files[1]


def test_without_shuffling_rows_of_one_length_keep_their_order(go: Go) -> None:
    _, out = go(texts=[(f"{i}", "same") for i in range(9)], shuffle=False)
    rows = [w.row_ids[0] for w in Windows.open(out / "train").rows()]
    assert rows == [f"train{i}" for i in range(9)]


def test_the_models_limit_counts_where_none_is_set_and_bounds_what_is() -> None:
    assert row_limit(None, window_tokens=4096, model_tokens=1024) == 1024
    assert row_limit(None, window_tokens=4096, model_tokens=16384) == 4096
    assert row_limit(2048, window_tokens=4096, model_tokens=16384) == 2048
    with pytest.raises(PipelineError, match="is 2048, the base model takes 1024"):
        row_limit(2048, window_tokens=4096, model_tokens=1024)


def test_a_row_limit_beyond_the_window_is_refused_with_both_numbers() -> None:
    with pytest.raises(PipelineError, match="max_tokens 4097 is more than window_tokens 4096"):
        check({"tokenize": {"max_tokens": 4097}})
