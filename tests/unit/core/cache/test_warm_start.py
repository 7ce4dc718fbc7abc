"""A stage that goes on from the champion: its key, its inputs, and when nothing is to be done."""

import shutil

import pytest

from tasks.core.artifacts import champion as champions
from tasks.core.artifacts.champion import PROMOTE, ChampionChange
from tasks.core.cache.decision import Selection
from tasks.core.errors import PipelineError
from tasks.core.settings.config import check


def settings(adapter="champion", **train):
    start = {"adapter": adapter}
    return check({"train": {"start": start, **train}, "hardware": {"device": "cpu"}})


@pytest.fixture
def lineage(pipeline, toy):
    """The toy pipeline, whose last stage adds the champion's words to those of now."""

    def train(config, inputs, work):
        before = [p.read_text() for name, p in sorted(inputs.items()) if name.startswith("champ")]
        text = " + ".join([*before, inputs["sort.sorted"].read_text().replace("\n", " ")])
        (work.out / "adapter.txt").write_text(text)
        return toy.Summary(text)

    toy.train = train
    warm_start = ("train.adapter",)
    stage = toy.Stage(
        "train",
        "toy:train",
        outputs=("adapter",),
        inputs=("read.words", "sort.sorted"),
        warm_start=warm_start,
        reads=("train",),
    )
    toy.STAGES = (*toy.STAGES[:2], stage)
    return pipeline


def made(lineage, config):
    """Run; the manifest of `train`."""
    lineage.run(config)
    plans = lineage.plan(config)
    assert [plan.decision for plan in plans] == ["HIT"] * 3
    return {plan.stage.name: plan.manifest for plan in plans}


def promote(lineage, manifests):
    chain = {name: manifest.key for name, manifest in manifests.items()}
    key = chain["train"]
    champions.promote(
        lineage.store, ChampionChange(PROMOTE, "train", key, chain=chain, profile="p")
    )


def text(manifests):
    return manifests["train"].summary["line"]


def test_without_a_champion_it_starts_anew(lineage):
    assert text(made(lineage, settings())) == "apple fig pear"


def test_a_champion_is_not_trained_on_from_itself(lineage):
    promote(lineage, made(lineage, settings("base")))
    assert lineage.decisions(settings()) == ["HIT"] * 3


def test_a_change_goes_on_from_the_champion_and_then_there_is_nothing_to_do(lineage):
    promote(lineage, made(lineage, settings()))
    second = made(lineage, settings(seed=1))
    assert text(second) == "apple fig pear + apple fig pear"
    assert "champion:train.adapter" in second["train"].parts["inputs"]
    promote(lineage, second)
    assert lineage.decisions(settings(seed=1)) == ["HIT"] * 3
    third = made(lineage, settings(seed=2))
    assert text(third) == "apple fig pear + apple fig pear + apple fig pear"


def test_a_champion_that_was_taken_back_leaves_its_successor_a_hit(lineage):
    promote(lineage, made(lineage, settings()))
    promote(lineage, made(lineage, settings(seed=1)))
    champions.rollback(lineage.store)
    assert lineage.decisions(settings(seed=1)) == ["HIT"] * 3


def test_a_start_that_is_forced_again_finds_the_champion_it_went_on_from(lineage):
    promote(lineage, made(lineage, settings()))
    promote(lineage, made(lineage, settings(seed=1)))
    assert lineage.run(settings(seed=1), Selection(force=("train",))) == []
    (plan,) = lineage.plan(settings(seed=1), Selection(only=("train",)))
    assert plan.manifest.summary["line"] == "apple fig pear + apple fig pear"


def test_a_champion_on_another_base_is_no_start(lineage, toy):
    promote(lineage, made(lineage, settings()))
    toy.SOURCE.write_text("kiwi")
    assert text(made(lineage, settings(seed=1))) == "kiwi"


def test_a_champion_whose_artifact_is_gone_is_told_with_both_ways_out(lineage):
    first = made(lineage, settings())
    promote(lineage, first)
    shutil.rmtree(lineage.store.folder("train", first["train"].key))
    with pytest.raises(PipelineError, match="stage train is incomplete") as error:
        lineage.plan(settings(seed=1))
    assert "finetune run --profile p" in error.value.remedy
    assert "train.start.adapter=base" in error.value.remedy
