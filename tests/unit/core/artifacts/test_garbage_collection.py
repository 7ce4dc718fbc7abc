"""What `finetune gc` finds and removes."""

import json
import shutil
from dataclasses import replace

import pytest

from tasks.core.artifacts import maintenance, runs
from tasks.core.artifacts.garbage_collection import collect, find_garbage
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache import cache_key
from tasks.core.cache.decision import Selection
from tasks.core.cache.store import MEMORY, TRASH
from tasks.core.errors import PipelineError


def keys(pipeline):
    return {plan.stage.name: plan.key for plan in pipeline.plan()}


def test_last_run_keeps_all_it_rests_on_and_older_artifacts_go(pipeline, toy):
    pipeline.run()
    RunRecord("20260101T000000-1", "p", (), keys(pipeline)).write(pipeline.store.root)
    toy.SOURCE.write_text("kiwi")
    pipeline.run()
    new = keys(pipeline)
    RunRecord("20260102T000000-1", "p", (), new).write(pipeline.store.root)
    garbage = find_garbage(pipeline.store, 1, 0, frozenset())
    assert {p.parent.name for p in garbage.folders} == {"read", "sort", "join"}
    collect(pipeline.store.root, garbage)
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]


def test_pinned_artifact_stays_with_all_that_it_rests_on(pipeline, toy):
    pipeline.run()
    key = keys(pipeline)["join"]
    toy.SOURCE.write_text("kiwi")
    pipeline.run()
    garbage = find_garbage(pipeline.store, 0, 0, frozenset({key}))
    collect(pipeline.store.root, garbage)
    assert {p.parent.name for p in garbage.folders} == {"read", "sort", "join"}
    toy.SOURCE.write_text("pear fig apple")
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]


def test_of_two_artifacts_with_the_same_output_one_is_enough(pipeline, toy):
    pipeline.run()
    toy.SOURCE.write_text("apple pear fig")  # sorted, the words are the same
    pipeline.run()
    key = keys(pipeline)["join"]
    garbage = find_garbage(pipeline.store, 0, 0, frozenset({key}))
    assert sorted(p.parent.name for p in garbage.folders) == ["read", "sort"]


def test_what_a_training_went_on_from_stays(pipeline):
    pipeline.run()
    plans = {p.stage.name: p for p in pipeline.plan()}
    join = plans["join"].manifest
    parts = {
        **join.parts,
        "inputs": {"champion:sort.sorted": join.parts["inputs"]["sort.sorted"]},
    }
    replace(join, parts=parts).write(pipeline.store.folder("join", join.key))
    garbage = find_garbage(pipeline.store, 0, 0, frozenset({join.key}))
    assert garbage.folders == ()


def test_what_is_remembered_about_an_output_goes_with_it(pipeline):
    pipeline.run()
    digest = pipeline.plan()[1].manifest.outputs["sorted"]
    memory = pipeline.store.root / MEMORY / "join"
    memory.mkdir(parents=True)
    known, unknown = memory / f"{digest[:12]}.sqlite", memory / f"{'0' * 12}.sqlite"
    known.write_text("kept")
    unknown.write_text("gone")
    key = keys(pipeline)["sort"]
    garbage = find_garbage(pipeline.store, 0, 0, frozenset({key}))
    assert unknown in garbage.leftovers
    collect(pipeline.store.root, garbage)
    assert (known.exists(), unknown.exists()) == (True, False)


def test_leftovers_of_killed_runs_go(pipeline):
    pipeline.run()
    work = pipeline.store.root / ".work" / f"train-{'a' * 12}" / "scratch"
    work.mkdir(parents=True)
    (work / "checkpoint").write_text("step 7")
    record = pipeline.store.root / ".runs" / "20260101T000000-0001-1.tmp"
    record.parent.mkdir()
    record.write_text("{")
    garbage = find_garbage(pipeline.store, 5, 5, frozenset())
    collect(pipeline.store.root, garbage)
    assert garbage.unfinished == (work.parent,)
    assert record in garbage.leftovers
    assert not work.exists()
    assert not record.exists()


def test_collection_killed_half_way_is_finished_by_the_next(pipeline):
    pipeline.run()
    folder = next((pipeline.store.root / "join").iterdir())
    trash = pipeline.store.root / TRASH
    trash.mkdir()
    shutil.move(folder, trash / "join-half")
    garbage = find_garbage(pipeline.store, 0, 0, frozenset())
    collect(pipeline.store.root, garbage)
    assert list(trash.iterdir()) == []
    assert pipeline.decisions()[2] == "RUN"


def three_failed(pipeline):
    """Records of a run that came to its end and of three later ones that did not."""
    RunRecord("20260101T000000-0001-1", "p", (), keys(pipeline)).write(pipeline.store.root)
    for n in range(2, 5):
        RunRecord(f"2026010{n}T000000-0001-1", "p", ended=False).write(pipeline.store.root)


def test_runs_that_failed_early_do_not_push_the_last_good_one_out(pipeline):
    pipeline.run()
    three_failed(pipeline)
    assert find_garbage(pipeline.store, 3, 0, frozenset()).folders == ()


def test_what_a_kept_run_has_half_done_stays(pipeline):
    work = pipeline.store.root / ".work" / f"train-{'a' * 12}"
    (work / "scratch").mkdir(parents=True)
    (work / "scratch" / "checkpoint").write_text("step 7")
    record = RunRecord("20260101T000000-0001-1", "p", making=work.name, ended=False)
    record.write(pipeline.store.root)
    assert find_garbage(pipeline.store, 1, 0, frozenset()).unfinished == ()
    assert find_garbage(pipeline.store, 0, 0, frozenset()).unfinished == (work,)


def test_pinned_run_keeps_what_it_rests_on_until_it_is_unpinned(pipeline):
    pipeline.run()
    root = pipeline.store.root
    run = "20260101T000000-0001-1"
    RunRecord(run, "p", (), keys(pipeline)).write(root)
    runs.pin(root, run)
    assert find_garbage(pipeline.store, 0, 0, frozenset()).folders == ()
    runs.pin(root, run, undo=True)
    assert len(find_garbage(pipeline.store, 0, 0, frozenset()).folders) == 3


def test_of_two_artifacts_with_the_same_output_the_whole_one_stays(pipeline, toy):
    pipeline.run()
    toy.SOURCE.write_text("apple pear fig")
    pipeline.run()
    pinned = frozenset({keys(pipeline)["join"]})
    for folder in (pipeline.store.root / "sort").iterdir():
        (folder / "sorted.txt").rename(folder / "elsewhere")
        garbage = find_garbage(pipeline.store, 0, 0, pinned)
        assert folder in garbage.folders
        (folder / "elsewhere").rename(folder / "sorted.txt")


def test_logs_locks_and_notes_of_what_is_gone_go_with_it(pipeline):
    pipeline.run()
    root = pipeline.store.root
    kept = keys(pipeline)["join"]
    for key in (kept, "0" * 64):
        for path in (
            f".logs/join-{key[:12]}.log",
            f".locks/join-{key[:12]}",
            f".prefect/join-{key}.json",
        ):
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).touch()
    collect(root, find_garbage(pipeline.store, 0, 0, frozenset({kept})))
    left = {p.name for p in root.glob(".[lp]*/join-*")}
    assert left == {f"join-{kept[:12]}.log", f"join-{kept[:12]}", f"join-{kept}.json"}


def test_id_of_a_run_that_begins_another_ones_is_found(pipeline):
    for process in ("471", "4711"):
        RunRecord(f"20260101T000000-0001-{process}", process).write(pipeline.store.root)
    assert runs.read(pipeline.store.root, "20260101T000000-0001-471").profile == "471"


def test_torn_record_of_a_run_is_named_and_nothing_is_collected(pipeline):
    path = pipeline.store.root / ".runs" / "20260101T000000-0001-1.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"id": ')
    with pytest.raises(
        PipelineError, match=r"20260101T000000-0001-1\.json is not a valid run record"
    ):
        find_garbage(pipeline.store, 1, 0, frozenset())


def test_record_of_a_newer_version_is_read_for_what_is_known_of_it(pipeline):
    root = pipeline.store.root
    RunRecord("20260101T000000-0001-1", "p", ("a.b=1",)).write(root)
    path = root / ".runs" / "20260101T000000-0001-1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unheard_of": 1}))
    assert runs.read(root, "-1").overrides == ("a.b=1",)


def test_accepted_artifact_that_no_run_has_used_yet_stays(pipeline, monkeypatch):
    pipeline.run()
    RunRecord("20260102T000000-1", "p", (), keys(pipeline)).write(pipeline.store.root)
    changed = {"toy:join": {"tasks.joining": {"join": "edited"}}}
    monkeypatch.setattr(cache_key, "closure", lambda run, digests, **_: changed.get(run, {}))
    accepted = maintenance.accept(pipeline.store, pipeline.plan()[2])
    garbage = find_garbage(pipeline.store, 1, 0, frozenset())
    collect(pipeline.store.root, garbage)
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]
    assert pipeline.plan()[2].key == accepted.key


def edit_sort(pipeline):
    folder = pipeline.store.folder("sort", keys(pipeline)["sort"])
    (folder / "sorted.txt").write_text("mine")
    return folder


def test_adopted_edit_is_set_aside_when_the_stage_is_forced(pipeline):
    pipeline.run()
    folder = edit_sort(pipeline)
    maintenance.adopt(pipeline.store, "sort", pipeline.plan()[1].key, ("sorted",))
    pipeline.run(selection=Selection(force=("sort",)))
    aside = folder.with_name(f"{folder.name}.edited-1")
    assert (aside / "sorted.txt").read_text() == "mine"


def test_edit_that_was_set_aside_is_listed_and_collected_with_its_artifact(pipeline):
    pipeline.run()
    aside = edit_sort(pipeline)
    pipeline.run()
    aside = aside.with_name(f"{aside.name}.edited-1")
    problems = {f.name: p for f, p in maintenance.verify(pipeline.store, deep=False) if p}
    assert problems[aside.name][0] == "set aside"
    kept = find_garbage(pipeline.store, 0, 0, frozenset({keys(pipeline)["join"]}))
    assert aside not in kept.leftovers
    assert aside in find_garbage(pipeline.store, 0, 0, frozenset()).leftovers
