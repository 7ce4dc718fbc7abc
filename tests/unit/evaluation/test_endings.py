"""Endings are found in the data, and a model that learned only them has not improved."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tasks.core.models.packed_dataset import IGNORED, Window, Windows
from tasks.core.models.packing import join_rows
from tasks.evaluation import row_losses
from tasks.evaluation.ending_tokens import Endings
from tasks.evaluation.model_pair import ModelPair
from tests.unit.evaluation.conftest import write_split

# tokens of an imagined tokenizer; EOS and the end of a turn are control tokens
TEXTS = [
    "<eos>",
    "<end>",
    "def",
    " f",
    "\n",
    "\n\n",
    "###",
    " End",
    ")\n\n",
    "#",
    "## End",
    "\n\n\n",
]
EOS, TURN, DEF, F, NEWLINE, EMPTY, MARK, END, MERGED, HASH, REST, MORE = range(len(TEXTS))


def text(ids: Sequence[int]) -> str:
    return "".join(TEXTS[i] for i in ids)


def endings(*ends: str) -> Endings:
    return Endings({EOS, TURN}, ends, text)


MARKER = endings("\n\n### End")


@pytest.mark.parametrize(
    ("ids", "content"),
    [
        ([DEF, F, EMPTY, MARK, END, EOS], [DEF, F]),
        ([DEF, F, MORE, MARK, END, EOS], [DEF, F]),  # a token of content and separator
        ([DEF, MERGED, MARK, END, EOS], [DEF]),
        ([DEF, EMPTY, HASH, REST, EOS], [DEF]),  # other tokens of the same text
        ([DEF, F, MARK, END], [DEF, F]),  # the marker without the empty line and EOS
        ([DEF, F, EOS], [DEF, F]),  # no marker: text, infilling
        ([DEF, F], [DEF, F]),  # untouched text has no ending
        ([DEF, NEWLINE], [DEF, NEWLINE]),  # white space alone is content
        ([DEF, F, TURN, NEWLINE], [DEF, F]),  # the end of a turn in a chat
        ([DEF, NEWLINE, TURN, NEWLINE, EOS], [DEF, NEWLINE]),
        ([EMPTY, MARK, END, EOS], []),
        ([MARK, END, DEF, EMPTY, MARK, END], [MARK, END, DEF]),  # a marker inside an answer
    ],
)
def test_what_belongs_to_the_ending_is_found_from_the_end(ids: list[int], content: list[int]):
    assert ids[: len(ids) - MARKER.length(ids)] == content


def test_a_template_without_a_marker_has_control_tokens_only():
    assert endings("").length([DEF, F, EMPTY, MARK, END, EOS]) == 1


def test_every_trained_span_of_every_sample_has_its_own_ending():
    ids = np.asarray([F, DEF, TURN, NEWLINE, F, F, DEF, F, TURN, EOS, F, DEF, MORE, MARK, END, EOS])
    trained = np.asarray([0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1], dtype=bool)
    ends = np.asarray([0, 10, 16], dtype=np.int32)
    window = Window(ids, np.where(trained, ids, IGNORED), np.arange(16), ends, ("a", "b"))
    expected = [2, 3, 8, 9, 12, 13, 14, 15]
    assert np.flatnonzero(MARKER.mask(window)).tolist() == expected


def test_spans_of_neighbouring_samples_are_not_joined():
    ids = np.asarray([DEF, EOS, DEF, F])
    ends = np.asarray([0, 2, 4], dtype=np.int32)
    window = Window(ids, ids.copy(), np.arange(4), ends, ("a", "b"))
    assert np.flatnonzero(MARKER.mask(window)).tolist() == [1]


def test_the_rows_of_the_pipeline_have_the_marker_and_eos_as_ending(
    pair: ModelPair, inputs: dict[str, Any]
):
    row = next(Windows.open(inputs["tokenize.test"]).rows())
    mask = pair.endings("instruction").mask(row)
    assert pair.tokenizer.decode(row.input_ids[mask]).endswith("\n\n### End<|endoftext|>")
    assert "return a + 0" in pair.text(row.input_ids[~mask])


def test_content_and_endings_add_up_to_what_training_minimizes(
    pair: ModelPair, inputs: dict[str, Any]
):
    rows = list(Windows.open(inputs["tokenize.test"]).rows())

    def measured(ends: Endings) -> list[Any]:
        return row_losses.measure(
            pair.model, join_rows(rows, 400), clusters={}, byte_count=len, endings=ends
        )

    apart, together = measured(pair.endings("instruction")), measured(Endings((), (), text))
    for one, whole in zip(apart, together, strict=True):
        assert one.ending_tokens > 0 == whole.ending_tokens
        assert one.tokens + one.ending_tokens == whole.tokens
        assert one.base_correct + one.base_ending_correct == whole.base_correct
        both = one.tuned_loss_sum + one.tuned_ending_loss_sum
        assert both == pytest.approx(whole.tuned_loss_sum, rel=1e-6)


def test_a_model_that_learned_only_endings_is_inconclusive_and_the_report_says_what_it_learned(
    pair: ModelPair, tokenizer_folder: Any, tmp_path: Any, run_stage: Any, monkeypatch: Any
):
    """The tuned model is the base, except that it is nearly sure of the end marker and EOS."""
    (tmp_path / "data").mkdir()
    changed = write_split(tmp_path / "data", tokenizer_folder, 60, projects=12)
    marker = {pair.tokenizer.eos_token_id, *pair.tokenizer("### End")["input_ids"]}
    real, calls = row_losses.token_losses, []

    def planted(hidden: Any, head: Any, targets: Any) -> Any:
        calls.append(len(targets))
        if len(calls) % 2:  # the base runs first
            planted.base = real(hidden, head, targets)
            return planted.base
        losses, hits = (values.clone() for values in planted.base)
        for place, target in enumerate(targets.tolist()):
            if target in marker:
                losses[place], hits[place] = 0.01, True
        return losses, hits

    monkeypatch.setattr(row_losses, "token_losses", planted)
    _, out = run_stage(changed=changed)
    gate = json.loads((out / "gate.json").read_text())
    assert gate["verdict"] == "inconclusive"
    numbers = json.loads((out / "metrics.json").read_text())["rows"]["held-out"]
    assert numbers["tuned"]["loss_with_endings"] < 0.95 * numbers["base"]["loss_with_endings"]
    assert numbers["tuned"]["loss"] == numbers["base"]["loss"]
    assert numbers["tuned"]["ending_loss"] < 0.6 * numbers["base"]["ending_loss"]
    page = (out / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "ends by itself 0 % → 0 % of 2 answers, loss of end markers and EOS" in page
