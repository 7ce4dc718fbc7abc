"""Untouched texts: of several kinds, each long enough to measure, chosen by seed."""

import pytest

from tasks.evaluation.untouched import general_instructions, other_languages, registry


def test_there_are_enough_texts_of_every_kind() -> None:
    chosen, missing = registry.choose_texts(None, 0)
    assert missing == ()
    assert list(chosen) == ["untouched code", "other languages", "general instructions"]
    assert {kind: len(texts) for kind, texts in chosen.items()} == {
        "untouched code": 164,
        "other languages": 96,
        "general instructions": 64,
    }
    assert all(len(text) > 60 for texts in chosen.values() for text in texts.values())


def test_other_languages_are_several_and_no_python() -> None:
    suffixes = {name.rpartition(".")[2] for name in other_languages.texts()}
    assert suffixes == {"h", "f90", "cuh", "cmake"}


def test_general_instructions_differ_and_use_no_template_of_the_training() -> None:
    texts = list(general_instructions.texts().values())
    assert len(set(texts)) == len(texts)
    assert not any("###" in text for text in texts)


def test_the_choice_depends_on_the_seed_alone() -> None:
    first = registry.choose_texts(8, 0)
    assert first == registry.choose_texts(8, 0)
    assert first != registry.choose_texts(8, 1)
    assert all(len(texts) == 8 for texts in first[0].values())
    assert registry.choose_texts(0, 0) == ({}, ())


def test_a_kind_that_cannot_be_read_is_named_and_the_others_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(other_languages, "PLACES", ())
    chosen, (reason,) = registry.choose_texts(2, 0)
    assert list(chosen) == ["untouched code", "general instructions"]
    assert "other languages, could not be measured" in reason
