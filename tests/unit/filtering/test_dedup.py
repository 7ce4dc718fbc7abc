import random as chance

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.decontamination.ngrams import hash_words, jaccard, ngram_sets
from tasks.core.settings.config import check
from tasks.filtering.dedup.exact_dedup import NO_TWIN, text_key
from tasks.filtering.dedup.find_duplicates import Duplicates, find_duplicates
from tasks.filtering.dedup.minhash import MinHash, band_keys
from tasks.filtering.dedup.near_dedup import NearCandidates


def survivors(row_ids: list[str], passes: list[bool], *texts: list[int]) -> set[str]:
    """Ids of the rows that pass and have no twin."""
    order = np.argsort(np.array(row_ids, dtype=str), kind="stable")
    groups = [np.array(column, dtype=np.int64) for column in texts]
    no_bands = NearCandidates(np.empty((len(row_ids), 0), np.uint64), list, 1.0)
    twins = find_duplicates(order, np.array(passes, dtype=bool), groups, no_bands).exact
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


def near_of(
    texts: list[str], least: float = 0.7, bands: int = 25, rows: int = 10
) -> NearCandidates:
    grams = ngram_sets(hash_words(texts), 5)
    keys = band_keys(grams, MinHash(5, bands * rows, bands, rows))
    return NearCandidates(keys, grams.__getitem__, least)


def find_near(texts: list[str], order: list[int] | None = None, **given: float) -> Duplicates:
    numbers = np.array(order if order is not None else range(len(texts)), dtype=np.int64)
    return find_duplicates(numbers, np.ones(len(texts), dtype=bool), [], near_of(texts, **given))


def kept(found: Duplicates) -> list[int]:
    return np.flatnonzero(~found.is_near).tolist()


def words(count: int, seed: int) -> list[str]:
    return [f"w{chance.Random(f'{seed}-{n}').randrange(10**9)}" for n in range(count)]


def varied(base: list[str], changes: int, seed: int) -> str:
    """The words with some of them replaced."""
    own, new = chance.Random(seed), list(base)
    for place in own.sample(range(len(new)), changes):
        new[place] = f"x{own.randrange(10**9)}"
    return " ".join(new)


def test_near_twin_tells_the_kept_row_and_the_true_similarity() -> None:
    base = words(200, 1)
    texts = [" ".join(base), varied(base, 2, 2), " ".join(words(200, 3))]
    found = find_near(texts)
    one, other = ngram_sets(hash_words(texts[:2]), 5)
    assert kept(found) == [0, 2] and found.near.tolist() == [NO_TWIN, 0, NO_TWIN]
    assert found.similarity[1] == jaccard(one, other) > 0.7
    assert found.clusters.tolist() == [0, 0, 2]


def test_drifting_chain_does_not_fall_as_one() -> None:
    # each row is a twin of the next one: as a component, 300 rows would leave one
    stream = words(900, 1)
    texts = [" ".join(stream[start : start + 300]) for start in range(0, 600, 2)]
    found = find_near(texts)
    survivors = kept(found)
    assert len(survivors) > 10
    grams = ngram_sets(hash_words(texts), 5)
    assert min(map(jaccard, grams, grams[1:])) > 0.9
    for row in range(len(texts)):
        best = max(jaccard(grams[row], grams[other]) for other in survivors)
        assert best >= 0.7


def test_proposed_pairs_that_are_not_alike_all_stay() -> None:
    # every row shares a band with every other one, as short bands make it in templated data
    texts = [" ".join(words(40, seed)) for seed in range(120)]
    near = near_of(texts)
    near.keys[:, 0] = 7
    order = np.arange(len(texts))
    found = find_duplicates(order, np.ones(len(texts), dtype=bool), [], near)
    assert kept(found) == list(range(120)) and found.verified > 0
    assert len(set(found.clusters.tolist())) == 120


def test_rows_are_proposed_by_whole_band_keys_and_not_by_parts_of_them() -> None:
    texts = [" ".join(words(40, 1))] * 4
    near = near_of(texts, bands=1)
    near.keys[:, 0] = [5, 5 + (1 << 60), 5 + (1 << 61), 5]
    found = find_duplicates(np.arange(4), np.ones(4, dtype=bool), [], near)
    assert kept(found) == [0, 1, 2]


def test_group_of_the_same_texts_keeps_exactly_one() -> None:
    found = find_near(["one two three four five six seven"] * 50)
    assert kept(found) == [0]


def test_rows_without_words_are_no_twins() -> None:
    assert kept(find_near(["", "...", ""])) == [0, 1, 2]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=25), st.randoms())
def test_near_survivors_do_not_depend_on_the_order_of_the_rows(
    drawn: list[tuple[int, int]], random
) -> None:
    texts = [varied(words(60, base), changes, n) for n, (base, changes) in enumerate(drawn)]
    place = random.sample(range(len(texts)), len(texts))
    first = find_near(texts)
    # row place[i] now stands at i; the order of ids stays
    shuffled = find_near([texts[i] for i in place], np.argsort(place).tolist() if place else [])
    assert sorted(place[i] for i in kept(shuffled)) == kept(first)
    for i, old in enumerate(place):
        twin = shuffled.near[i]
        assert (place[twin] if twin != NO_TWIN else NO_TWIN) == first.near[old]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 6), st.booleans()),
        max_size=25,
    )
)
def test_every_row_dropped_has_a_kept_twin_and_no_two_kept_rows_are_a_verified_pair(
    drawn: list[tuple[int, int, int, bool]],
) -> None:
    texts = [varied(words(60, base), changes, n) for n, (base, changes, _, _) in enumerate(drawn)]
    groups = np.array([group for *_, group, _ in drawn], dtype=np.int64)
    passes = np.array([passed for *_, passed in drawn], dtype=bool)
    # bands of one hash propose nearly every pair, so that the kept rows can be held to the truth
    near = near_of(texts, bands=64, rows=1)
    found = find_duplicates(np.arange(len(texts)), passes, [groups], near)
    is_kept = passes & ~found.is_near & (found.exact[0] == NO_TWIN)
    grams = ngram_sets(hash_words(texts), 5)
    for row in np.flatnonzero(passes & ~is_kept):
        twins = {found.exact[0][row], found.near[row] if found.is_near[row] else NO_TWIN}
        assert any(is_kept[twin] for twin in twins - {NO_TWIN})
        if found.is_near[row]:
            assert jaccard(grams[row], grams[found.near[row]]) >= 0.7
    survivors = np.flatnonzero(is_kept).tolist()
    assert len({groups[row] for row in survivors}) == len(survivors)
    for n, row in enumerate(survivors):
        assert all(jaccard(grams[row], grams[other]) < 0.7 for other in survivors[:n])


def test_signature_agrees_as_often_as_the_sets_are_alike() -> None:
    base = words(300, 5)
    grams = ngram_sets(hash_words([" ".join(base), varied(base, 12, 6)]), 5)
    keys = band_keys(grams, MinHash(5, 1024, 512, 1))
    assert np.mean(keys[0] == keys[1]) == pytest.approx(jaccard(*grams), abs=0.07)


def test_pairs_just_above_the_threshold_are_found_with_the_default_bands() -> None:
    default = check({}).filter.near_duplicates
    pairs = [words(300, seed) for seed in range(60)]
    texts = [t for n, base in enumerate(pairs) for t in (" ".join(base), varied(base, 10, n))]
    grams = ngram_sets(hash_words(texts), 5)
    close = [jaccard(grams[i], grams[i + 1]) >= 0.7 for i in range(0, len(texts), 2)]
    found = find_near(texts, bands=default.bands, rows=default.rows_per_band)
    assert sum(close) > 50
    assert found.is_near.sum() >= 0.95 * sum(close)
