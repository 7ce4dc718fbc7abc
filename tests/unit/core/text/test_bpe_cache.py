import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as cuts

from tasks.core.text.bpe_cache import PROBE, BpeCache

TEXTS = [PROBE * 3, "def add(a, b):\n    return a + b\n\n\n" * 5, "x = 12345 * it's we'll"] * 5
ASCII = st.text(st.characters(max_codepoint=127), max_size=60)
PARTS = [" ", "  ", "    ", "\n", "\t", "\r\n", "\x0b", "\x1c", "\0"]
PARTS += ["12", "3", "a", "Bc", "_", "'s", "'S", "(", "==", "<|end|>"]
WORDS = st.lists(st.sampled_from(PARTS), max_size=25).map("".join)


def tokenizer(*before: cuts.PreTokenizer, spaces: bool = False) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    byte_level = cuts.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = cuts.Sequence([*before, byte_level]) if before else byte_level
    bpe.decoder = decoders.ByteLevel()
    bpe.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|end|>"],
        initial_alphabet=cuts.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS, trainer)
    if spaces:
        bpe.add_tokens([AddedToken(" " * n, normalized=True) for n in range(2, 9)])
    bpe.encode_special_tokens = True
    return bpe


@pytest.fixture(scope="module", params=["GPT-2", "GPT-NeoX", "StarCoder"])
def backend(request: pytest.FixtureRequest) -> Tokenizer:
    """Three ways to cut: plain, with runs of blanks as tokens, with single digits."""
    digits = (cuts.Digits(individual_digits=True),)
    return tokenizer(
        *(digits if request.param == "StarCoder" else ()), spaces=request.param == "GPT-NeoX"
    )


@settings(max_examples=300)
@given(text=ASCII | WORDS)
@example(text=PROBE)
@example(text="a  1  \n\n 2 \n x")
def test_the_ids_are_the_tokenizers_own(backend: Tokenizer, text: str) -> None:
    cache = BpeCache.of(backend)
    assert cache is not None
    assert cache.encode(text) == backend.encode(text, add_special_tokens=False).ids
    assert cache.exact


def test_another_way_to_cut_is_left_to_the_tokenizer() -> None:
    assert BpeCache.of(tokenizer(cuts.Whitespace())) is None
    assert BpeCache.of(tokenizer(cuts.Digits(individual_digits=False))) is None


def test_a_tokenizer_whose_tokens_absorb_spaces_has_no_cache() -> None:
    made = tokenizer()
    made.add_tokens([AddedToken("<x>", lstrip=True)])
    assert BpeCache.of(made) is None


def test_a_pre_token_that_decodes_to_another_text_is_inexact() -> None:
    made = tokenizer()
    made.decoder = decoders.WordPiece()
    cache = BpeCache.of(made)
    assert cache is not None and not cache.exact


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.core.text.bpe_cache.MAX_CACHED", 10)
    made = tokenizer()
    cache = BpeCache.of(made)
    assert cache is not None
    text = " ".join(f"word{n}" for n in range(100))
    assert cache.encode(text) == made.encode(text, add_special_tokens=False).ids
    assert len(cache._ids) <= 10
