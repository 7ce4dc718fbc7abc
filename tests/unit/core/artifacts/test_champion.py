import os

import pytest

from tasks.core.artifacts import champion as champions
from tasks.core.artifacts.champion import PROMOTE, ChampionChange
from tasks.core.artifacts.garbage_collection import artifacts, find_garbage
from tasks.core.errors import PipelineError
from tasks.core.settings.config import check

WHY = {"base": ("Loss is worse.",), "champion": ("Can't tell.",)}


def made(pipeline, window):
    """An entry of the artifact that the toy pipeline makes with this setting."""
    config = check({"hardware": {"device": "cpu"}, "tokenize": {"window_tokens": 5000 + window}})
    pipeline.run(config)
    keys = {plan.stage.name: plan.key for plan in pipeline.plan(config)}
    return ChampionChange(
        PROMOTE, "join", keys["join"], chain=keys, profile="p", overrides=("a.b=1",)
    )


@pytest.fixture
def two(pipeline):
    """Two promoted models, the later first."""
    first, second = made(pipeline, 1), made(pipeline, 2)
    champions.promote(pipeline.store, first)
    champions.promote(pipeline.store, second)
    return second, first


def linked(pipeline):
    return (pipeline.store.root / "champion").readlink().as_posix()


def test_link_leads_to_the_artifact_wherever_the_folder_is_moved(pipeline, two, tmp_path):
    moved = pipeline.store.root.rename(tmp_path / "elsewhere")
    assert (moved / "champion" / "line.txt").read_text() == "apple fig pear"


def test_rollback_goes_back_one_promotion_at_a_time(pipeline, two):
    third = made(pipeline, 3)
    champions.promote(pipeline.store, third)
    assert [champions.rollback(pipeline.store)[1].name for _ in range(2)] == [e.name for e in two]
    assert linked(pipeline) == two[1].name
    with pytest.raises(PipelineError, match="roll back to: 1 promoted, 2 needed"):
        champions.rollback(pipeline.store)


def test_history_keeps_every_change_with_when_and_what_it_beat(pipeline, two):
    champions.rollback(pipeline.store, "too slow")
    entries = champions.history(pipeline.store.root)
    assert [e.action for e in entries] == ["promote", "promote", "rollback"]
    assert [e.beaten for e in entries] == ["", two[1].key, two[0].key]
    assert entries[-1].why == "too slow"
    assert all(e.when.endswith("+00:00") for e in entries)


def test_a_model_is_taken_back_until_a_person_promotes_it_again(pipeline, two):
    champions.rollback(pipeline.store, "too slow")

    def taken_back(entry):
        return champions.taken_back(champions.history(pipeline.store.root), entry.key)

    assert taken_back(two[0]).why == "too slow"
    assert taken_back(two[1]) is None
    champions.promote(pipeline.store, two[0])
    assert taken_back(two[0]) is None


def test_promoting_the_champion_again_changes_nothing(pipeline, two):
    assert champions.promote(pipeline.store, two[0]) is False
    assert len(champions.history(pipeline.store.root)) == 2


@pytest.mark.parametrize("step", ["_write", "_point"])
def test_kill_at_any_step_leaves_the_old_champion_or_the_new_one(pipeline, two, monkeypatch, step):
    third = made(pipeline, 3)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(champions, step, killed)
        with pytest.raises(KeyboardInterrupt):
            champions.promote(pipeline.store, third)
    assert linked(pipeline) == two[0].name
    wanted = two[0] if step == "_write" else third  # the account is ahead of the link
    assert champions.current(pipeline.store).key == wanted.key
    assert linked(pipeline) == wanted.name


def test_link_is_never_absent_while_it_moves(pipeline, two, monkeypatch):
    seen = []
    replace = os.replace

    def watched(*arguments, **options):
        seen.append((pipeline.store.root / "champion").exists())
        return replace(*arguments, **options)

    monkeypatch.setattr(os, "replace", watched)
    champions.rollback(pipeline.store)
    assert (pipeline.store.root / "champion").exists()
    assert all(seen)


def test_deleted_link_comes_back(pipeline, two):
    (pipeline.store.root / "champion").unlink()
    assert champions.current(pipeline.store).key == two[0].key
    assert linked(pipeline) == two[0].name


def test_rollback_to_a_damaged_artifact_is_refused_and_says_how_to_make_it(pipeline, two):
    (pipeline.store.folder("join", two[1].key) / "line.txt").write_text("edited")
    with pytest.raises(PipelineError, match=r"is incomplete \(edited line\.txt\)") as error:
        champions.rollback(pipeline.store)
    assert "finetune run --profile p --set a.b=1" in error.value.remedy
    assert linked(pipeline) == two[0].name


def test_artifact_that_is_gone_is_not_promoted(pipeline):
    with pytest.raises(PipelineError, match="it does not exist"):
        champions.promote(pipeline.store, ChampionChange(PROMOTE, "join", "0" * 64))


def test_gc_keeps_all_that_the_last_promotions_rest_on(pipeline, two):
    root = pipeline.store.root
    assert len(list(artifacts(root))) == 4  # read, sort and twice join, not the link
    garbage = find_garbage(pipeline.store, 0, 0, champions.pinned(root))
    assert garbage.folders == ()
    garbage = find_garbage(pipeline.store, 0, 0, champions.pinned(root, last=1))
    assert [folder.name for folder in garbage.folders] == [two[1].key[:12]]


def test_torn_history_is_named_and_not_overwritten(pipeline, two):
    path = pipeline.store.root / ".champion.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(PipelineError, match="is not a valid history of champions"):
        champions.promote(pipeline.store, made(pipeline, 3))


@pytest.mark.parametrize("force", [False, True])
def test_model_worse_than_the_base_is_refused_even_by_force(force):
    with pytest.raises(PipelineError, match="worse than the base: Loss is worse"):
        champions.check({"base": "regressed"}, WHY, force=force, because="I like it")


@pytest.mark.parametrize(
    "verdicts",
    [
        {"base": "inconclusive"},
        {"base": "improved", "champion": "inconclusive"},
        {"base": "improved", "champion": "regressed"},
    ],
)
def test_what_is_not_shown_to_be_better_takes_force_and_a_reason(verdicts):
    with pytest.raises(PipelineError, match="not shown to be better"):
        champions.check(verdicts, WHY, force=False, because="")
    with pytest.raises(PipelineError, match="requires a reason"):
        champions.check(verdicts, WHY, force=True, because=" ")
    assert champions.check(verdicts, WHY, force=True, because="its test set leaked") is True


def test_force_that_was_not_needed_is_not_recorded():
    assert champions.check({"base": "improved"}, WHY, force=True, because="sure") is False
