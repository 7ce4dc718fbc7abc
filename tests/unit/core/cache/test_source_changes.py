"""What a plan says about a change of data: files of the sources, rows of the inputs."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.cache.decision import Selection
from tasks.core.cache.digest_cache import sha256
from tasks.core.cache.source_changes import Recorder, changed_files, inside
from tasks.core.stage import Summary


def said(plan):
    return [str(cause) for cause in plan.causes]


def test_changed_source_file_is_named(pipeline, toy):
    pipeline.run()
    toy.SOURCE.write_text("kiwi fig")
    assert said(pipeline.plan()[0]) == [f"data words.txt (changed: {toy.SOURCE})"]


def test_file_below_the_home_is_named_from_there(pipeline, toy, monkeypatch, tmp_path):
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    pipeline.run()
    toy.SOURCE.write_text("kiwi fig")
    assert said(pipeline.plan()[0]) == ["data words.txt (changed: words.txt)"]


def test_new_gone_and_changed_files_are_told_apart_and_a_long_list_is_cut():
    old = {"a": "1", "b": "1", "c": "1"}
    new = {"a": "2", "c": "1", **{f"n{i}": "1" for i in range(5)}}
    assert changed_files(old, new) == "changed: a; new: n0, n1, n2 and 2 more; gone: b"


def test_file_that_cannot_be_read_is_named(tmp_path):
    kept, broken = tmp_path / "kept.jsonl", tmp_path / "broken.jsonl"
    kept.write_text("{}")
    broken.symlink_to("nowhere")
    before, now = Recorder(sha256), Recorder(sha256)
    before(kept)
    now(kept)
    with pytest.raises(FileNotFoundError):
        now(broken)
    assert changed_files(before.files, now.files) == f"new: {broken}"


def test_names_that_are_no_text_are_shown_and_move_no_terminal():
    old, new = {}, {os.fsdecode(b"caf\xe9.jsonl"): "1", "\x1b[2J.jsonl": "1"}
    assert changed_files(old, new) == "new: ⟨U+001B⟩[2J.jsonl, caf\\xe9.jsonl"


def test_input_without_rows_names_its_file(pipeline, toy):
    pipeline.run()
    toy.SOURCE.write_text("kiwi fig")
    pipeline.run(selection=Selection(only=("read",)))
    assert said(pipeline.plan()[1]) == ["data read.words (changed: words.txt)"]


@pytest.fixture
def tables(pipeline, toy, monkeypatch):
    """The pipeline with a first stage that writes its words as a table, one row a word."""

    def read(config, inputs, work):
        words = toy.SOURCE.read_text().split()
        pq.write_table(pa.table({"row_id": words}), work.out / "words.parquet")
        return Summary("read", rows_in=len(words), rows_out=len(words))

    def sort(config, inputs, work):
        words = sorted(pq.read_table(inputs["read.words"]).column(0).to_pylist())
        (work.out / "sorted.txt").write_text("\n".join(words))
        return Summary("sorted", rows_in=len(words), rows_out=len(words))

    monkeypatch.setattr(toy, "read", read)
    monkeypatch.setattr(toy, "sort", sort)
    return pipeline


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("pear fig apple kiwi plum", "2 rows added"),
        ("pear", "2 rows removed"),
        ("pear kiwi", "1 row added, 2 rows removed"),
        ("apple fig pear", "the same 3 rows with other content or in another order"),
    ],
)
def test_rows_of_an_input_that_came_and_went_are_counted(tables, toy, words, text):
    tables.run()
    toy.SOURCE.write_text(words)
    tables.run(selection=Selection(only=("read",)))
    assert said(tables.plan()[1]) == [f"data read.words ({text})"]


def test_input_whose_earlier_artifact_is_gone_is_named_without_rows(tables, toy):
    import shutil

    tables.run()
    old = tables.plan()[0].manifest
    toy.SOURCE.write_text("kiwi")
    tables.run(selection=Selection(only=("read",)))
    shutil.rmtree(tables.store.folder("read", old.key))
    assert said(tables.plan()[1]) == ["data read.words"]


def test_file_that_is_no_table_is_told_as_a_file(tables, toy):
    tables.run()
    old = tables.plan()[0].manifest
    toy.SOURCE.write_text("kiwi")
    tables.run()
    new = tables.plan()[0].manifest
    Path(tables.store.folder("read", old.key) / "words.parquet").write_text("torn")
    assert inside(tables.store, "words", old, new) == "changed: words.parquet"


class TestExpected:
    """Seconds by rows of past runs."""

    @pytest.fixture
    def timed(self, tables, monkeypatch):
        """A run over three rows, each stage of which took 3 seconds."""
        from tasks.core.cache import execute

        real = execute._describe

        def describe(plan, key, summary, work, seconds, flow_run):
            return real(plan, key, summary, work, float(summary.rows_in or 1), flow_run)

        monkeypatch.setattr(execute, "_describe", describe)
        tables.run()
        return tables

    def test_three_times_as_many_rows_take_three_times_as_long(self, timed, toy):
        toy.SOURCE.write_text("a b c d e f g h i")
        timed.run(selection=Selection(only=("read",)))
        plan = timed.plan()[1]
        assert (plan.expected_seconds, plan.expected_rows) == (9.0, 9.0)

    def test_growth_is_passed_on_to_stages_behind(self, timed, toy, monkeypatch):
        toy.SOURCE.write_text("a b c d e f")
        timed.run(selection=Selection(only=("read",)))
        changed = timed.plan()
        assert [p.decision for p in changed] == ["HIT", "RUN", "MAYBE"]
        assert changed[1].expected_rows == 6.0

    def test_a_hit_costs_nothing_and_a_stage_that_never_ran_is_unknown(self, timed, toy):
        assert [p.expected_seconds for p in timed.plan()] == [0.0] * 3
        fresh = toy.Pipeline(timed.store.root.with_name("fresh"))
        assert [p.expected_seconds for p in fresh.plan()] == [None] * 3


def test_runs_of_two_sizes_give_a_line_that_keeps_the_start_up(pipeline):
    from tasks.core.cache.cost_estimate import seconds_for
    from tasks.core.cache.manifest import Manifest

    def past(rows, seconds):
        return Manifest("s", "k", {}, {}, {}, {"rows_in": rows}, seconds)

    assert seconds_for(300, [past(100, 12.0), past(200, 14.0)]) == pytest.approx(16.0)
    assert seconds_for(300, [past(100, 12.0)]) == pytest.approx(36.0)
    assert seconds_for(None, [past(100, 12.0), past(100, 14.0)]) == pytest.approx(13.0)
