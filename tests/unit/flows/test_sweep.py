"""The variants of a sweep, their order, their rounds and their intervals."""

from pathlib import Path

import numpy as np
import pytest

from flows.cli import main
from flows.sweep import trials
from flows.sweep.grid import read_grid
from flows.sweep.scores import RowLosses, scores
from flows.sweep.trials import Round, SweepTrial
from tasks.core.settings import config as configs


@pytest.fixture
def profile(tmp_path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text("train: {learning_rate: 2.0e-4, max_steps: 100, warmup_steps: 10}\n")
    return path


def places(grid):
    return [variant.place for variant in grid.variants]


def test_every_combination_is_a_variant_and_single_values_are_shared(profile):
    grid = read_grid(
        profile,
        ["train.learning_rate=1e-4,2e-4,5e-4", "train.lora_rank=8,32", "train.batch_rows=2"],
    )
    assert places(grid) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert grid.variants[3].overrides == ("train.learning_rate=2e-4", "train.lora_rank=32")
    assert grid.fixed == ("train.batch_rows=2",)


def test_a_list_in_brackets_is_one_value(profile):
    grid = read_grid(profile, ["train.target_modules=[q_proj, v_proj],[q_proj]"])
    assert [v.overrides[0] for v in grid.variants] == [
        'train.target_modules=["q_proj", "v_proj"]',
        'train.target_modules=["q_proj"]',
    ]
    assert configs.load(profile, grid.variants[0].overrides).train.target_modules == (
        "q_proj",
        "v_proj",
    )


def test_two_spellings_of_a_value_are_one_variant(profile):
    grid = read_grid(profile, ["train.learning_rate=1e-4,0.0001,2e-4"])
    assert [v.label for v in grid.variants] == ["learning_rate 1e-4", "learning_rate 2e-4"]


def test_the_profile_s_own_values_come_first_and_then_the_neighbours_of_the_best(profile):
    grid = read_grid(profile, ["train.learning_rate=1e-4,2e-4,5e-4,1e-3"])
    first = grid.next({}, grid.variants)
    assert first.place == (1,)
    left = [v for v in grid.variants if v != first]
    assert grid.next({(1,): 1.0}, left).place == (0,)
    assert grid.next({(1,): 1.0, (2,): 0.9}, [left[0], left[2]]).place == (3,)


@pytest.mark.parametrize(
    ("value", "note"),
    [
        (
            "5e-4",
            "5e-4 is the largest train.learning_rate of this sweep; a larger one may be better.",
        ),
        (
            "1e-4",
            "1e-4 is the smallest train.learning_rate of this sweep; a smaller one may be better.",
        ),
        ("2e-4", None),
    ],
)
def test_a_best_value_at_the_end_of_its_list_is_pointed_out(profile, value, note):
    grid = read_grid(profile, ["train.learning_rate=1e-4,2e-4,5e-4", "train.seed=1,2"])
    best = next(v for v in grid.variants if dict(v.values)["train.learning_rate"] == value)
    found = [text for text in grid.ends(best) if "learning_rate" in text]
    assert found == ([note] if note else [])


@pytest.mark.parametrize(
    ("options", "problem", "remedy"),
    [
        (["--set", "train.lora_rank=8"], "no setting has several values", "1e-4,2e-4"),
        (["--set", "train.lora_rnk=8,16"], "lora_rnk: unknown field", "train.lora_rank"),
        (["--set", "train.lora_rank=8,x"], "train.lora_rank", "Change train.lora_rank"),
        (
            ["--set", "filter.max_function_lines=10,20"],
            "filter.max_function_lines can't be swept: stage filter reads it, and only "
            "settings of the training can be swept",
            "`finetune diff`",
        ),
        (
            ["--set", "train.log_every=1,2"],
            "it does not change the result of a training",
            "Give train.log_every one value",
        ),
        (
            ["--set", "train.max_steps=50,60", "--halving"],
            "--halving sets train.max_steps, which is also swept",
            "leave out --halving",
        ),
        (
            ["--set", "train.seed=1,2", "--seeds", "2"],
            "--seeds 2 sets train.seed, which is also swept",
            "Leave out one of them",
        ),
    ],
)
def test_what_cannot_be_swept_is_explained_in_two_lines(
    small_profile, capsys, options, problem, remedy
):
    assert main(["sweep", "--profile", str(small_profile), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert problem in lines[0]
    assert remedy in lines[1]


def test_too_many_trainings_are_refused_with_their_number_and_cost(small_profile, capsys):
    options = ["--set", "train.lora_rank=2,4,8", "--seeds", "2", "--max-trainings", "5"]
    assert main(["sweep", "--profile", str(small_profile), *options]) == 2
    problem, remedy = capsys.readouterr().err.splitlines()
    assert "more than 5 trainings: 3 variants, 6 trainings, 0 of them done; cost unknown" in problem
    assert remedy.endswith("--max-trainings 6.")


def test_halving_doubles_the_steps_of_the_better_half():
    assert trials.rounds(8, halving=True) == [
        Round(8, 1 / 8), Round(4, 1 / 4), Round(2, 1 / 2), Round(1, 1)
    ]  # fmt: skip
    assert trials.rounds(3, halving=True) == [Round(3, 1 / 4), Round(2, 1 / 2), Round(1, 1)]
    assert trials.rounds(3, halving=False) == [Round(3, 1)]


def test_a_trial_with_a_quarter_of_the_steps_has_a_quarter_of_the_schedule(profile):
    grid = read_grid(profile, ["train.lora_rank=8,16", "train.epochs=2"])
    train = configs.load(profile, grid.fixed).train
    trial = SweepTrial(grid.variants[0], seed=7, share=0.25)
    found = configs.load(profile, trial.overrides(grid.fixed, train)).train
    assert (found.max_steps, found.warmup_steps, found.epochs, found.seed) == (25, 2, 0.5, 7)
    assert trial.name == "lora_rank 8, seed 7, 1/4 of the steps"


def test_a_trial_measures_the_validation_split_and_nothing_else(profile):
    grid = read_grid(profile, ["train.lora_rank=8,16"])
    train = configs.load(profile).train
    request = SweepTrial(grid.variants[0]).request(str(profile), (), train)
    measured = configs.load(profile, request.overrides).evaluate
    assert measured.split == "validation"
    counts = [measured.samples, measured.humaneval_problems, measured.held_out_problems]
    counts += [measured.infilling_problems, measured.probe_problems, measured.completion_spans]
    assert [*counts, len(measured.sets)] == [0] * 7
    assert request.selection.until == "evaluate"


def losses(draw, shift=0.0, projects=12):
    """Losses of 4 rows of each project, around 2 nats."""
    count = projects * 4
    moved = np.repeat(draw.normal(shift, 0.02, projects), 4)
    tuned = 20 * (2 + moved)
    return RowLosses(
        tuple(map(str, range(count))),
        tuple(str(i // 4) for i in range(count)),
        (20,) * count,
        (50.0,) * count,
        tuple(tuned),
        (10,) * count,
    )


@pytest.fixture
def variants(profile):
    return read_grid(profile, ["train.lora_rank=1,2,3,4,5,6,7,8"]).variants


def test_a_variant_that_is_much_worse_is_told_apart_from_the_best(variants):
    draw = np.random.default_rng(0)
    found = scores({variants[0]: [losses(draw)], variants[1]: [losses(draw, 0.3)]}, 1)
    assert list(found) == [variants[0], variants[1]]
    assert not found[variants[0]].is_worse
    assert found[variants[1]].is_worse


def test_intervals_widen_with_the_number_of_variants_tried(variants):
    draw = np.random.default_rng(0)
    both = {variants[0]: [losses(draw)], variants[1]: [losses(draw, 0.05)]}
    one, many = (scores(both, pairs)[variants[1]] for pairs in (1, 28))
    assert many.high - many.low > 1.2 * (one.high - one.low)


def test_of_eight_equal_variants_the_worst_is_rarely_told_apart_from_the_best(variants):
    runs, wrong, uncorrected = 100, 0, 0
    for run in range(runs):
        draw = np.random.default_rng(run)
        equal = {variant: [losses(draw)] for variant in variants}
        wrong += any(score.is_worse for score in scores(equal, 28).values())
        uncorrected += any(score.is_worse for score in scores(equal, 1).values())
    assert wrong <= 0.05 * runs + 2.33 * (0.05 * 0.95 * runs) ** 0.5
    assert uncorrected > 0.1 * runs


def test_too_few_projects_give_no_interval(variants):
    draw = np.random.default_rng(0)
    few = {v: [losses(draw, shift, projects=5)] for v, shift in zip(variants, (0, 1), strict=False)}
    assert scores(few, 1)[variants[1]].low is None
