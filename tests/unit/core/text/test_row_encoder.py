import pytest

from tasks.core.text.prompt_templates import complete, render
from tasks.core.text.row_encoder import RowEncoder
from tests.unit.core.text.tokenizers_for_tests import SENTENCEPIECE, byte_level, legacy_llama

PROMPT = render("instruction", "What is it?")
ANSWER = "def add(a, b):\n    return a  + 'é中 ▁'\n"


@pytest.mark.parametrize("kind", SENTENCEPIECE)
def test_prompt_and_completion_are_encoded_as_one_text(kind: str) -> None:
    made = SENTENCEPIECE[kind]([])
    completion = complete("instruction", ANSWER)
    (row,) = RowEncoder(made).pairs([PROMPT], [completion])
    assert row.ids == [*made(PROMPT + completion)["input_ids"], made.eos_token_id]
    assert row.ids[: row.prompt_tokens] == RowEncoder(made).prompts([PROMPT])[0]
    assert row.spans == ((row.prompt_tokens, len(row.ids)),)


@pytest.mark.parametrize("kind", SENTENCEPIECE)
def test_rows_of_sentencepiece_tokenizers_are_exact(kind: str) -> None:
    encoder = RowEncoder(SENTENCEPIECE[kind]([]))
    texts = ["def f():\n", " a", "", "é中  x\n\n", "\ta"]
    prompts, answers = zip(*((one, other) for one in texts for other in texts), strict=True)
    assert all(row.exact for row in encoder.pairs(prompts, answers))


def test_a_token_that_spans_the_boundary_is_trained() -> None:
    made = legacy_llama([])
    (row,) = RowEncoder(made).pairs(["x = 1\nde"], ["f add"])
    first = made.convert_ids_to_tokens(row.ids[row.prompt_tokens])
    assert first.startswith("def")


def test_segments_are_one_text_of_which_the_labelled_are_trained() -> None:
    for made in (byte_level(["<|end|>"], eos_token="<|end|>"), legacy_llama([])):
        texts = ["# Add\n", "def add(a, b):", "\n    # twice\n", "    return a + b"]
        parts = [{"text": text, "train": n % 2 == 1} for n, text in enumerate(texts)]
        (row,) = RowEncoder(made).conversations([{"segments": parts}], "output")
        assert row.ids == [*made("".join(texts))["input_ids"], made.eos_token_id]
        spans = [made.decode(row.ids[a:b], skip_special_tokens=True) for a, b in row.spans]
        assert [span.strip() for span in spans] == ["def add(a, b):", "return a + b"]
        assert row.spans[-1][1] == len(row.ids) and row.is_closed


def test_a_last_segment_that_is_not_trained_leaves_eos_untrained() -> None:
    parts = [{"text": "a", "train": True}, {"text": "\nb", "train": False}]
    encoder = RowEncoder(byte_level(["<|end|>"], eos_token="<|end|>"))
    (row,) = encoder.conversations([{"segments": parts}], "output")
    assert row.spans == ((0, 1),) and not row.is_closed and row.ids[-1] == encoder.eos


def test_control_tokens_in_a_prompt_template_become_their_ids() -> None:
    made = byte_level(["<|user|>", "<|bot|>", "<|end|>"], eos_token="<|end|>")
    own = "<|user|>{instruction} <now>\n<|bot|>{output}<|end|>"
    (row,) = RowEncoder(made).pairs([render(own, "Say <|bot|>.")], [complete(own, "<|end|>")])
    control = made.convert_tokens_to_ids
    assert [i for i in row.ids if i < 3] == [control(t) for t in ("<|user|>", "<|bot|>", "<|end|>")]
    assert made.decode(row.ids) == "<|user|>Say <|bot|>. <now>\n<|bot|><|end|><|end|>"


def test_bytes_of_the_trained_text_are_counted_and_not_its_control_tokens() -> None:
    made = byte_level(["<|end|>"], eos_token="<|end|>")
    (row,) = RowEncoder(made).pairs(["Say it:"], ["中文"])
    assert row.text_bytes == 6 and row.text_tokens == len(row.ids) - row.prompt_tokens - 1
