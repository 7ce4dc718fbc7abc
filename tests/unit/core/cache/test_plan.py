import dataclasses

import pytest

from tasks.core.cache.decision import Selection
from tasks.core.cache.plan import Planner
from tasks.core.errors import PipelineError
from tasks.core.settings.config import check
from tasks.core.stage import StageOption


def causes(plan):
    return [(cause.kind, cause.what) for cause in plan.causes]


def test_everything_runs_the_first_time_and_nothing_the_second(pipeline):
    assert pipeline.run() == ["read", "sort", "join"]
    assert pipeline.run() == []
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]


def test_a_stage_that_never_ran_says_so(pipeline):
    assert [causes(p) for p in pipeline.plan()] == [
        [("never ran", "read")],
        [("never ran", "sort")],
        [("never ran", "join")],
    ]


def test_edited_source_is_noticed_and_what_is_behind_it_may_run(pipeline, toy):
    pipeline.run()
    toy.SOURCE.write_text("kiwi fig")
    plans = pipeline.plan()
    assert [p.decision for p in plans] == ["RUN", "MAYBE", "MAYBE"]
    assert causes(plans[0]) == [("data", "words.txt")]


def test_touched_source_runs_nothing(pipeline, toy):
    pipeline.run()
    toy.SOURCE.touch()
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]


def test_early_cut_off_same_output_runs_nothing_behind(pipeline, toy):
    pipeline.run()
    toy.SOURCE.write_text("apple pear fig")  # other order: sort gives the same words
    assert pipeline.run() == ["read", "sort"]
    assert pipeline.decisions() == ["HIT", "HIT", "HIT"]


def test_setting_reruns_only_the_stage_that_reads_it_with_old_and_new_value(pipeline):
    pipeline.run()
    changed = check({"tokenize": {"window_tokens": 2048, "max_tokens": 512}})
    plans = pipeline.plan(changed)
    assert [p.decision for p in plans] == ["HIT", "HIT", "RUN"]
    cause = next(c for c in plans[2].causes if c.what == "tokenize.window_tokens")
    assert (cause.kind, cause.new) == ("config", 2048)
    assert cause.old not in (None, 2048)


def test_change_behind_a_stage_that_runs_is_run_not_maybe(pipeline, toy):
    pipeline.run()
    toy.SOURCE.write_text("kiwi")
    changed = check({"tokenize": {"window_tokens": 2048, "max_tokens": 512}})
    assert pipeline.decisions(changed) == ["RUN", "MAYBE", "RUN"]


def test_deleted_artifact_is_noticed_and_only_its_stage_runs(pipeline):
    pipeline.run()
    sort = pipeline.plan()[1].manifest
    (pipeline.store.folder("sort", sort.key) / "sorted.txt").unlink()
    plan = pipeline.plan()[1]
    assert (plan.decision, causes(plan)) == ("RUN", [("missing", "sorted.txt")])
    assert pipeline.run() == ["sort"]


def test_edited_artifact_is_noticed_and_the_edit_is_kept_aside(pipeline):
    pipeline.run()
    sort = pipeline.plan()[1].manifest
    folder = pipeline.store.folder("sort", sort.key)
    (folder / "sorted.txt").write_text("mine")
    assert causes(pipeline.plan()[1]) == [("edited", "sorted.txt")]
    assert pipeline.run() == ["sort"]
    kept = folder.with_name(folder.name + ".edited-1") / "sorted.txt"
    assert kept.read_text() == "mine"


def test_force_runs_a_stage_and_an_equal_output_runs_nothing_behind(pipeline):
    pipeline.run()
    forced = Selection(force=("read",))
    assert [p.decision for p in pipeline.plan(selection=forced)] == ["RUN", "MAYBE", "MAYBE"]
    assert pipeline.run(selection=forced) == ["read"]


def test_only_runs_one_stage(pipeline):
    pipeline.run()
    assert pipeline.run(selection=Selection(only=("sort",), force=("sort",))) == ["sort"]


def test_only_behind_a_missing_artifact_is_refused_with_the_reason(pipeline):
    with pytest.raises(PipelineError, match=r"join needs sort\.sorted.*never ran"):
        pipeline.plan(selection=Selection(only=("join",)))


def test_start_from_leaves_the_stages_before_alone(pipeline):
    pipeline.run()
    names = [p.stage.name for p in pipeline.plan(selection=Selection(start_from="sort"))]
    assert names == ["sort", "join"]


def test_unknown_stage_lists_the_known_ones(pipeline):
    with pytest.raises(PipelineError, match="'bake'") as error:
        pipeline.plan(selection=Selection(only=("bake",)))
    assert "read, sort, join" in error.value.remedy


def test_version_of_a_declared_package_is_a_cause(pipeline, toy, monkeypatch):
    pipeline.run()
    pinned = dataclasses.replace(toy.STAGES[1], env=("pyarrow",))
    monkeypatch.setattr(toy, "STAGES", (toy.STAGES[0], pinned, toy.STAGES[2]))
    assert causes(pipeline.plan()[1]) == [("env", "pyarrow")]


def test_remedy_of_only_names_the_first_stage_that_has_to_run(pipeline):
    with pytest.raises(PipelineError, match="stage read has to run first") as error:
        pipeline.plan(selection=Selection(only=("join",)))
    assert "`finetune run --from read`" in error.value.remedy
    assert pipeline.run(selection=Selection(start_from="read")) == ["read", "sort", "join"]


def test_only_reads_the_sources_of_the_stages_that_it_needs(pipeline, toy):
    pipeline.run()
    toy.SOURCE.unlink()
    other = toy.Stage("other", "toy:read", outputs=("words",), sources="toy:sources")
    alone = toy.Stage("alone", "toy:sort", outputs=("sorted",))
    settings = check({"hardware": {"device": "cpu"}})
    selection = Selection(only=("alone",))
    planner = Planner((other, alone), settings, pipeline.store, pipeline.digests, selection)
    assert [plan.stage.name for plan in planner.plan()] == ["alone"]


def test_an_option_of_a_stage_enters_its_key_only_while_its_setting_is_on(pipeline, toy):
    extra = StageOption("filter.base_loss", "toy:sort", inputs=("read.words",), env=("numpy",))
    own, on = toy.STAGES[2], check({"filter": {"base_loss": True}})
    optional = dataclasses.replace(own, options=(extra,))
    assert optional.with_options(check({})) == optional
    stages = (*toy.STAGES[:2], optional)
    pipeline.run()

    def plan(config):
        return Planner(
            stages, config, pipeline.store, pipeline.digests, Selection(only=("join",))
        ).plan()[0]

    assert plan(check({})).decision == "HIT"
    changed = plan(on)
    assert changed.decision == "RUN"
    assert set(changed.parts["inputs"]) == {"sort.sorted", "read.words"}
    assert "numpy" in changed.parts["env"]
    assert changed.stage.run == "toy:sort"
