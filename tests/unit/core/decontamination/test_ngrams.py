import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.decontamination.ngrams import (
    hash_words,
    jaccard,
    ngram_sets,
    ngrams,
)

TEXTS = st.lists(st.text(alphabet="ab_1 .,\n(é字", max_size=30), max_size=8)


def spelled(text: str) -> list[str]:
    return re.findall(r"字[a-z0-9_é]*|[a-z0-9_é]+", text.lower())


@given(TEXTS)
def test_words_are_those_of_a_plain_reading(texts: list[str]) -> None:
    words = hash_words(texts)
    assert np.diff(words.starts).tolist() == [len(spelled(text)) for text in texts]
    flat = [word for text in texts for word in spelled(text)]
    by_hash = dict(zip(words.hashes.tolist(), flat, strict=True))
    assert [by_hash[h] for h in words.hashes.tolist()] == flat
    assert len(by_hash) == len(set(flat))


@given(TEXTS)
def test_hashes_do_not_depend_on_the_batch(texts: list[str]) -> None:
    whole = hash_words(texts).hashes.tolist()
    assert whole == [h for text in texts for h in hash_words([text]).hashes.tolist()]


@given(TEXTS, st.integers(1, 4))
def test_ngrams_stay_within_their_row(texts: list[str], size: int) -> None:
    words = hash_words(texts)
    grams = ngrams(words, size)
    expected = [max(0, len(spelled(text)) - size + 1) for text in texts]
    assert np.diff(grams.starts).tolist() == expected
    alone = [ngrams(hash_words([text]), size).hashes.tolist() for text in texts]
    assert grams.hashes.tolist() == [h for row in alone for h in row]


@given(
    st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12)
)
def test_jaccard_is_that_of_the_sets(one: list[str], other: list[str]) -> None:
    first, second = ngram_sets(hash_words([" ".join(one), " ".join(other)]), 2)

    def plain(words: list[str]) -> set[tuple[str, ...]]:
        return set(pairwise(words)) or ({tuple(words)} if words else set())

    a, b = plain(one), plain(other)
    assert jaccard(first, second) == pytest.approx(len(a & b) / len(a | b) if a | b else 0)


def test_case_does_not_count_and_order_does() -> None:
    one, same, other = ngram_sets(hash_words(["A b C", "a B c", "c b a"]), 2)
    assert jaccard(one, same) == 1 and jaccard(one, other) == 0
