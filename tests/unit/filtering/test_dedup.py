import random as chance
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.core.decontamination.ngrams import Hashes, hash_words, jaccard, ngram_sets
from tasks.core.settings.config import check
from tasks.filtering.dedup.common_ngrams import common_ngrams
from tasks.filtering.dedup.exact_dedup import NO_TWIN, text_key, trimmed
from tasks.filtering.dedup.find_duplicates import Duplicates, find_duplicates
from tasks.filtering.dedup.minhash import MinHash, band_keys
from tasks.filtering.dedup.near_dedup import NearCandidates

NONE = np.empty(0, np.uint64)


def no_bands(rows: int) -> NearCandidates:
    return NearCandidates(np.empty((rows, 0), np.uint64), lambda _: (NONE, NONE), 1.0, NONE, list)


def survivors(row_ids: list[str], passes: list[bool], texts: list[int] | None) -> set[str]:
    """Ids of the rows that pass and have no twin."""
    order = np.argsort(np.array(row_ids, dtype=str), kind="stable")
    groups = None if texts is None else np.array(texts, dtype=np.int64)
    near = no_bands(len(row_ids))
    twins = find_duplicates(order, np.array(passes, dtype=bool), groups, near).exact
    return {i for i, p, t in zip(row_ids, passes, twins != NO_TWIN, strict=True) if p and not t}


ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30)


@given(ROWS, st.randoms())
def test_survivors_do_not_depend_on_the_order(rows: list[tuple[bool, int]], random) -> None:
    named = [(f"{n:04d}", *row) for n, row in enumerate(rows)]
    shuffled = random.sample(named, len(named))
    first, second = (
        survivors(*map(list, zip(*r, strict=True))) if r else set() for r in (named, shuffled)
    )
    assert first == second


@given(ROWS)
def test_every_text_keeps_one_of_the_rows_that_pass(rows: list[tuple[bool, int]]) -> None:
    ids = [str(n) for n in range(len(rows))]
    passes, texts = (list(c) for c in zip(*rows, strict=True)) if rows else ([], [])
    kept = [texts[int(i)] for i in survivors(ids, passes, texts)]
    assert sorted(kept) == sorted({text for passed, text in rows if passed})


def test_row_that_other_rules_reject_takes_no_twin_with_it() -> None:
    assert survivors(["a", "b"], [False, True], [1, 1]) == {"b"}


def test_no_text_to_compare_keeps_all() -> None:
    assert survivors(["a", "b"], [True, True], None) == {"a", "b"}


@pytest.mark.parametrize(
    ("one", "other"), [("a  \nb\n", "a\nb"), ("\n\nx", "x"), ("x\t", "x"), ("x\r\ny", "x\ny")]
)
def test_whitespace_at_the_ends_of_lines_does_not_count(one: str, other: str) -> None:
    assert trimmed(one) == trimmed(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("if x:\n  a()\n  b()", "if x:\n  a()\nb()"),
        ("newyork", "new york"),
        ("  x", "x"),
        ("a b", "a\nb"),
    ],
)
def test_whitespace_inside_a_text_counts(one: str, other: str) -> None:
    assert trimmed(one) != trimmed(other)


def test_blank_texts_have_no_key() -> None:
    assert trimmed(" \n") == "" and text_key("", "") is None and text_key("", "x") is not None


def test_answers_to_one_question_are_numbered_best_first_and_in_one_cluster() -> None:
    order, passes = np.array([2, 0, 1, 3]), np.array([True, True, True, False])
    found = find_duplicates(order, passes, None, no_bands(4), np.array([7, 7, 7, 7]))
    assert found.answer_number.tolist() == [1, 2, 0, 0]
    assert found.clusters.tolist() == [0, 0, 0, 3]


def near_of(
    texts: list[str], least: float = 0.7, bands: int = 25, rows: int = 10
) -> NearCandidates:
    grams = ngram_sets(hash_words(texts), 5)
    minhash = MinHash(5, bands * rows, bands, rows)
    return NearCandidates(
        band_keys(grams, minhash),
        lambda row: (NONE, grams[row]),
        least,
        NONE,
        lambda sets: band_keys(sets, minhash),
    )


def find_near(texts: list[str], order: list[int] | None = None, **given: float) -> Duplicates:
    numbers = np.array(order if order is not None else range(len(texts)), dtype=np.int64)
    return find_duplicates(numbers, np.ones(len(texts), dtype=bool), None, near_of(texts, **given))


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
    texts = [" ".join(words(40, seed)) for seed in range(60)]
    near = near_of(texts)
    near.keys[:, 0] = 7
    order = np.arange(len(texts))
    found = find_duplicates(order, np.ones(len(texts), dtype=bool), None, near)
    assert kept(found) == list(range(60)) and found.verified > 0
    assert len(set(found.clusters.tolist())) == 60


def test_rows_are_proposed_by_whole_band_keys_and_not_by_parts_of_them() -> None:
    texts = [" ".join(words(40, 1))] * 4
    near = near_of(texts, bands=1)
    near.keys[:, 0] = [5, 5 + (1 << 60), 5 + (1 << 61), 5]
    found = find_duplicates(np.arange(4), np.ones(4, dtype=bool), None, near)
    assert kept(found) == [0, 1, 2]


def test_group_of_the_same_texts_keeps_exactly_one() -> None:
    found = find_near(["one two three four five six seven"] * 50)
    assert kept(found) == [0]


def test_rows_without_words_are_no_twins() -> None:
    assert kept(find_near(["", "...", ""])) == [0, 1, 2]


@settings(max_examples=40)
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


@settings(max_examples=40)
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
    found = find_duplicates(np.arange(len(texts)), passes, groups, near)
    is_kept = passes & ~found.is_near & (found.exact == NO_TWIN)
    grams = ngram_sets(hash_words(texts), 5)
    for row in np.flatnonzero(passes & ~is_kept):
        twins = {found.exact[row], found.near[row] if found.is_near[row] else NO_TWIN}
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


PREAMBLE = " ".join(words(80, 11))


def answers(near: NearCandidates) -> Callable[[NDArray[np.int64]], Hashes]:
    return lambda rows: np.concatenate([near.grams(row)[1] for row in rows.tolist()])


def test_what_many_rows_share_does_not_make_near_duplicates() -> None:
    texts = [f"{PREAMBLE} {' '.join(words(12, seed))}" for seed in range(100)]
    near = near_of(texts, bands=42, rows=6)
    common = common_ngrams(np.zeros(100, np.int64), np.arange(100, dtype=np.uint64), answers(near))
    order = np.arange(100)
    found = find_duplicates(order, np.ones(100, dtype=bool), None, replace(near, common=common))
    assert kept(found) == list(range(100))
    # with the preamble, 79 of 103 n-grams of a pair are the same
    assert len(kept(find_duplicates(order, np.ones(100, dtype=bool), None, near))) == 1


def test_near_duplicates_are_found_among_rows_that_share_a_preamble() -> None:
    texts = [f"{PREAMBLE} {varied(words(60, n // 2), n % 2, n)}" for n in range(200)]
    near = near_of(texts, bands=42, rows=6)
    common = common_ngrams(np.zeros(200, np.int64), np.arange(200, dtype=np.uint64), answers(near))
    found = find_duplicates(
        np.arange(200), np.ones(200, dtype=bool), None, replace(near, common=common)
    )
    assert kept(found) == list(range(0, 200, 2))


def test_questions_and_answers_must_both_be_near() -> None:
    one, other = (ngram_sets(hash_words([" ".join(words(40, n))]), 5)[0] for n in (1, 2))
    rows = [(one, one), (one, other), (other, one), (one, one), (one, NONE), (one, NONE)]
    near = NearCandidates(np.ones((6, 4), np.uint64), rows.__getitem__, 0.7, NONE, list)
    assert kept(find_duplicates(np.arange(6), np.ones(6, dtype=bool), None, near)) == [
        0,
        1,
        2,
        4,
        5,
    ]


@pytest.mark.parametrize("shared", ["a preamble", "nothing"])
def test_comparisons_grow_with_the_rows_and_not_with_their_square(shared: str) -> None:
    texts = [
        f"{PREAMBLE if shared == 'a preamble' else ''} {' '.join(words(12, n))}"
        for n in range(3000)
    ]
    near = near_of(texts, bands=42, rows=6)
    common = common_ngrams(
        np.zeros(3000, np.int64), np.arange(3000, dtype=np.uint64), answers(near)
    )
    found = find_duplicates(
        np.arange(3000), np.ones(3000, dtype=bool), None, replace(near, common=common)
    )
    assert kept(found) == list(range(3000)) and found.verified < 3000
