import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.filtering.duplicates import NO_TWIN, find_twins, text_key


def survivors(row_ids: list[str], passes: list[bool], *texts: list[int]) -> set[str]:
    """Ids of the rows that pass and have no twin."""
    keys = [pa.array([t.to_bytes(16, "big") for t in column], pa.binary(16)) for column in texts]
    twins = find_twins(row_ids, np.array(passes, dtype=bool), keys)
    is_twin = (
        np.any([t != NO_TWIN for t in twins], axis=0) if twins else np.zeros(len(row_ids), bool)
    )
    return {i for i, p, t in zip(row_ids, passes, is_twin, strict=True) if p and not t}


ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5)), max_size=30)


@given(ROWS, st.randoms())
def test_survivors_do_not_depend_on_the_order(rows: list[tuple[bool, int, int]], random) -> None:
    named = [(f"{n:04d}", *row) for n, row in enumerate(rows)]
    shuffled = random.sample(named, len(named))
    first, second = (
        survivors(*map(list, zip(*r, strict=True))) if r else set() for r in (named, shuffled)
    )
    assert first == second


@given(ROWS)
def test_every_text_keeps_a_row_or_loses_it_to_a_kept_twin(
    rows: list[tuple[bool, int, int]],
) -> None:
    ids = [str(n) for n in range(len(rows))]
    passes, asked, answers = (list(c) for c in zip(*rows, strict=True)) if rows else ([], [], [])
    kept = survivors(ids, passes, asked, answers)
    kept_asked = [asked[int(i)] for i in kept]
    kept_answers = [answers[int(i)] for i in kept]
    assert len(set(kept_asked)) == len(kept_asked) and len(set(kept_answers)) == len(kept_answers)
    for row_id, (passed, a, b) in zip(ids, rows, strict=True):
        if passed and row_id not in kept:
            assert a in kept_asked or b in kept_answers


def test_row_that_other_rules_reject_takes_no_twin_with_it() -> None:
    assert survivors(["a", "b"], [False, True], [1, 1]) == {"b"}


def test_chain_of_twins_does_not_fall_as_one() -> None:
    assert survivors(["a", "b", "c"], [True] * 3, [1, 1, 2], [1, 2, 2]) == {"a", "c"}


def test_no_text_to_compare_keeps_all() -> None:
    assert survivors(["a", "b"], [True, True]) == {"a", "b"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x=1  # one"),
        ("def f():\n    return 1", "def f():\n\n  # why\n  return 1\n"),
        ("x = '#a'  # b", "x = '#a'"),
        ('"""# a"""\nx', '"""# a"""  # b\nx'),
    ],
)
def test_whitespace_and_comments_of_python_do_not_count(one: str, other: str) -> None:
    assert text_key(one, is_python=True) == text_key(other, is_python=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = '#a'", "x = '#b'"),
        ('"""# a"""', '"""# b"""'),
        ("x = 1", "x = 2"),
        (r"'\'#a'", r"'\'#b'"),
    ],
)
def test_text_after_a_hash_in_a_string_counts(one: str, other: str) -> None:
    assert text_key(one, is_python=True) != text_key(other, is_python=True)


def test_hash_in_prose_is_no_comment() -> None:
    one, other = "Write a C# program that adds.", "Write a C# program that sorts."
    assert text_key(one, is_python=False) != text_key(other, is_python=False)
