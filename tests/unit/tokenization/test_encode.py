from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tasks.core.models.pretrained import read_tokenizer
from tasks.core.text.row_encoder import RowEncoder

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def encoder_of(backend: Tokenizer) -> RowEncoder:
    return RowEncoder(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>"))


@pytest.fixture(scope="module")
def encoder(tokenizer_folder: Path) -> RowEncoder:
    return RowEncoder(read_tokenizer(tokenizer_folder))


@given(prompt=text, completion=text)
def test_the_boundary_is_exact_and_the_last_token_is_eos(
    encoder: RowEncoder, prompt: str, completion: str
) -> None:
    (row,) = encoder.pairs([prompt], [completion])
    assert row.exact
    assert row.ids[-1] == encoder.eos
    assert row.ids[: row.prompt_tokens] == encoder.pairs([prompt], [""])[0].ids[:-1]
    assert row.ids[row.prompt_tokens :] == encoder.pairs([""], [completion])[0].ids


def test_a_control_token_written_in_the_text_is_only_letters(encoder: RowEncoder) -> None:
    (row,) = encoder.pairs(["<|endoftext|>"], ["x = '<|endoftext|>'"])
    assert row.ids.count(encoder.eos) == 1
    assert row.exact


def test_a_letter_that_the_tokenizer_composes_counts_as_exact(encoder: RowEncoder) -> None:
    assert encoder.pairs(["cafe\u0301 "], ["e\u0301"])[0].exact


def test_nothing_is_put_before_a_text_that_the_tokenizer_leaves_bare(encoder: RowEncoder) -> None:
    assert encoder.pairs(["a"], [""])[0].ids == [encoder.pairs(["a"], [""])[0].ids[0], 0]


def test_a_tokenizers_own_beginning_is_kept_as_prompt(tokenizer_folder: Path) -> None:
    backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    backend.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    (row,) = encoder_of(backend).pairs(["a"], ["b"])
    assert (row.ids[0], row.prompt_tokens, row.exact) == (0, 2, True)


def test_truncation_and_padding_that_a_tokenizer_file_asks_for_are_off(
    tokenizer_folder: Path,
) -> None:
    backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    (row,) = encoder_of(backend).pairs(["x y z u v w"], ["1 2 3 4 5 6"])
    assert row.exact


def test_tokens_that_decode_to_another_text_are_inexact(tokenizer_folder: Path) -> None:
    backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    backend.decoder = None
    assert not encoder_of(backend).pairs(["a b"], ["c d"])[0].exact
