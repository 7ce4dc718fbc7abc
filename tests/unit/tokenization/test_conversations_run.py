"""The stage with conversations, segments and plain text, and the remedies of its errors."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import IGNORED, Windows
from tasks.core.models.pretrained import read_tokenizer
from tasks.core.rows import row_schema
from tasks.core.settings.config import View, check
from tasks.core.stage import Summary, Work
from tasks.core.text.row_encoder import RowEncoder
from tasks.tokenization import STAGE
from tasks.tokenization.run import SPLITS, run
from tests.unit.core.text.chat_templates import model

Go = Callable[..., tuple[Summary, Path]]


def turns(number: int, **flags: Any) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": f"Add {number}."},
        {"role": "assistant", "content": f"a + {number}"},
        {"role": "user", "content": "Twice."},
        {"role": "assistant", "content": f"2 * (a + {number})"},
    ]
    return {"messages": [{**m, **flags} for m in messages], "date": "2024-07-26"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    model("ChatML").save_pretrained(folder)
    (folder / "model_limits.json").write_text('{"max_tokens": 512}')
    return folder


@pytest.fixture
def go(tmp_path: Path, folder: Path) -> Go:
    def call(rows: list[dict[str, Any]], **settings: Any) -> tuple[Summary, Path]:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        made = [
            {"row_id": f"r{n}", "project": "p", "prompt": "", "completion": "", "kind": "", **row}
            | {"conversation": json.dumps(row["conversation"]) if "conversation" in row else ""}
            for n, row in enumerate(rows)
        ]
        inputs = {f"prompt.{split}": tmp_path / f"{split}.parquet" for split in SPLITS}
        for path in inputs.values():
            pq.write_table(pa.Table.from_pylist(made, schema=row_schema.PROMPTS), path)
        inputs["base.tokenizer"] = folder
        inputs["prompt.split"] = tmp_path / "split.json"
        inputs["prompt.split"].write_text("{}")
        inputs["filter.kept"] = tmp_path / "kept.parquet"
        pq.write_table(row_schema.KEPT.empty_table(), inputs["filter.kept"])
        settings = {"window_tokens": 128, "min_characters_per_token": 0} | settings
        view = View(check({"tokenize": settings}), STAGE.reads)
        return run(view, inputs, Work(out, tmp_path / "scratch")), out

    return call


def chats(count: int = 9, **flags: Any) -> list[dict[str, Any]]:
    return [{"conversation": turns(n, **flags)} for n in range(count)]


def labels_of(out: Path, folder: Path) -> dict[str, str]:
    """Trained text of each row."""
    decode = PreTrainedTokenizerFast.from_pretrained(folder).decode
    return {
        window.row_ids[0]: decode(window.labels[window.labels != IGNORED].tolist())
        for window in Windows.open(out / "train").rows()
    }


def test_training_reads_every_answer_of_a_conversation_as_label(go: Go, folder: Path) -> None:
    summary, out = go(chats())
    assert summary.rows_out == 27
    assert labels_of(out, folder)["r7"] == "a + 7<|im_end|>2 * (a + 7)<|im_end|>"
    audit = json.loads((out / "audit.json").read_text())["train"]
    assert audit["rows_without_trained_eos"] == 0


def test_packed_windows_have_the_labels_of_their_rows(go: Go) -> None:
    _, out = go(chats())
    opened = Windows.open(out / "train")
    rows = {row.row_ids[0]: row for row in opened.rows()}
    for window in opened:
        for number, row_id in enumerate(window.row_ids):
            own = slice(*window.cu_seqlens[number : number + 2])
            assert window.labels[own].tolist() == rows[row_id].labels.tolist()


def test_a_split_of_single_answers_is_stored_without_spans(go: Go) -> None:
    _, out = go([{"prompt": f"Add {n}.", "completion": "a"} for n in range(9)])
    assert pq.read_schema(out / "train" / "rows.parquet").equals(row_schema.TOKENS)


@pytest.mark.parametrize(
    ("loss_on", "trained"),
    [("last", "2 * (a + 3)<|im_end|>"), ("row", "Twice."), ("output", None)],
)
def test_the_setting_says_which_messages_are_trained(
    go: Go, folder: Path, loss_on: str, trained: str | None
) -> None:
    rows = chats()
    for row in rows:
        row["conversation"]["messages"][2]["train"] = True
    _, out = go(rows, loss_on=loss_on)
    assert labels_of(out, folder)["r3"] == (trained or "a + 3<|im_end|>2 * (a + 3)<|im_end|>")


def test_segments_are_trained_where_they_are_labelled(go: Go, folder: Path) -> None:
    parts = [("# add\n", False), ("a + b", True), ("\n# twice\n", False), ("2 * a", True)]
    segments = [{"text": text, "train": train} for text, train in parts]
    _, out = go([{"conversation": {"segments": segments}}] * 5)
    assert set(labels_of(out, folder).values()) == {"a + b2 * a<|endoftext|>"}


def test_a_text_longer_than_a_window_is_trained_in_full(go: Go, folder: Path) -> None:
    text = "".join(f"line {n} of it\n" for n in range(200))
    summary, out = go([{"completion": text, "kind": "text"}, *chats(3)])
    assert summary.counts == {}
    rows = {row.row_ids[0]: row for row in Windows.open(out / "train").rows()}
    parts = [rows["r0"], *(rows[f"r0/{n}"] for n in range(2, len(rows) - 2))]
    assert len(parts) > 9 and max(len(part.input_ids) for part in parts) <= 128
    trained = np.concatenate([part.labels[part.labels != IGNORED] for part in parts])
    decode = PreTrainedTokenizerFast.from_pretrained(folder).decode
    assert text.endswith(decode(trained).removesuffix("<|endoftext|>"))
    encoder = RowEncoder(read_tokenizer(folder))
    ids = encoder.encode([text])[0]
    assert [ids[0], *trained] == [*ids, encoder.eos]


def test_a_character_of_several_bytes_counts_as_several(go: Go) -> None:
    rows = [{"prompt": "问", "completion": f"这是一个关于代码的回答{n}。"} for n in range(9)]
    least = {"min_characters_per_token": 0.99}  # the tokenizer knows bytes alone
    assert go(rows, **least)[0].counts == {}


FAILING: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "too_long": (
        [{"prompt": "Add.", "completion": "\x07" * 200}] * 3,
        {},
        r"204 to 205 tokens|20\d to 20\d tokens",
    ),
    "characters_per_token": (
        [{"prompt": "Add.", "completion": "\x07" * 40}] * 3,
        {"min_characters_per_token": 1.5},
        "1 to 1 bytes per token, min_characters_per_token is 1.5",
    ),
    "all_masked": (chats(3), {"loss_on": "row"}, "no token that is trained"),
}


@pytest.mark.parametrize("reason", FAILING)
def test_following_the_remedy_of_each_reason_works(go: Go, reason: str) -> None:
    rows, settings, problem = FAILING[reason]
    with pytest.raises(PipelineError, match=problem) as raised:
        go(rows, **settings)
    assert f"3 {reason}" in raised.value.problem
    said = re.findall(r"tokenize\.(\w+) to ([\w.]*\w)", raised.value.remedy)
    assert said
    fixed = settings | {name: _value(value) for name, value in said}
    assert go(rows, **fixed)[0].rows_out == 9


def _value(text: str) -> Any:
    return text if text.isalpha() else json.loads(text)


def test_rows_that_the_chat_template_refuses_are_counted_and_the_remedy_names_another(
    go: Go,
) -> None:
    refusing = "{{ raise_exception('no messages') }}"
    rows = [{"conversation": {**turns(0), "template": refusing}}] * 3
    summary, _ = go([*rows, *chats(9)])
    assert summary.counts["train_refused_by_chat_template"] == 3
    with pytest.raises(PipelineError, match="rejects them: no messages") as raised:
        go(rows)
    assert raised.value.remedy.startswith("Set prompt.template to instruction")


def test_rows_without_an_output_have_their_own_remedy(go: Go) -> None:
    with pytest.raises(PipelineError, match="3 empty_completion") as raised:
        go([{"prompt": "Add."}] * 3)
    assert "columns: {output: NAME}" in raised.value.remedy


def test_a_large_share_of_dropped_rows_is_reported_with_its_remedy(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("tasks.tokenization.run.say", said.append)
    go([*chats(9), *[{"prompt": "Add.", "completion": "\x07" * 200}] * 3])
    (note,) = (line for line in said if line.startswith("train: "))
    assert "3 of 12 rows dropped, too_long: " in note
    assert "Set tokenize.max_tokens to 204 and tokenize.window_tokens to 204." in note
