from hypothesis import given
from hypothesis import strategies as st

from tasks.prompting.split import SPLITS, split_of

shares = st.floats(0.01, 0.4)


@given(st.text(), shares, shares, shares, st.integers(0, 99))
def test_changing_one_share_moves_no_project_between_validation_and_test(
    project: str, validation: float, test: float, other: float, seed: int
) -> None:
    moved = {split_of(project, validation, test, seed), split_of(project, other, test, seed)}
    assert moved != {"validation", "test"}


@given(st.text(), shares, shares)
def test_a_larger_share_keeps_what_the_smaller_one_held_out(
    project: str, validation: float, test: float
) -> None:
    for split in ("validation", "test"):
        if split_of(project, validation, test, 0) == split:
            assert split_of(project, validation * 1.2, test * 1.2, 0) == split


def test_shares_are_met_over_many_projects() -> None:
    found = [split_of(f"project{i}", 0.05, 0.1, seed=3) for i in range(10_000)]
    counts = [found.count(name) for name in SPLITS]
    for count, wanted in zip(counts, (8500, 500, 1000), strict=True):
        assert abs(count - wanted) < 150


def test_another_seed_holds_out_other_projects() -> None:
    first, second = (
        {i for i in range(500) if split_of(str(i), 0.1, 0.1, seed) == "test"} for seed in (0, 1)
    )
    assert first != second
