from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tasks.core.errors import PipelineError
from tasks.core.text.prompt_templates import complete, fill_in, fill_prompt, render
from tasks.core.text.row_encoder import RowEncoder
from tasks.core.text.special_tokens import FIM_TOKENS, readable
from tests.unit.core.text.tokenizers_for_tests import legacy_llama

GOLDEN = Path(__file__).parents[3] / "golden"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *FIM_TOKENS[0]]


def tokenizer(special=SPECIAL, eos="<|endoftext|>", template: str | None = CHATML):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["user\nassistant\nAdd two numbers.\n\n"] * 9, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=eos)
    made.chat_template = template
    return made


def decoded(made, text: str) -> str:
    return made.decode(RowEncoder(made).encode([text])[0], skip_special_tokens=False)


def test_a_chat_is_the_tokenizers_own_to_the_byte() -> None:
    made = tokenizer()
    text = render("chat", "Add two numbers.", "1 and 2") + complete("chat", "x = 3")
    golden = GOLDEN.joinpath("prompt_chat.txt").read_bytes().decode()
    assert decoded(made, text) == golden.removesuffix("\n")


def test_a_chats_tokens_are_those_of_the_tokenizers_own_method() -> None:
    made = tokenizer()
    turns = [{"role": "user", "content": "\nAdd two numbers."}]
    wanted = made.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert RowEncoder(made).encode([render("chat", "\nAdd two numbers.")]) == [wanted]


def test_control_tokens_in_a_row_stay_ordinary_text() -> None:
    made = tokenizer()
    (ids,) = RowEncoder(made).encode([render("chat", "What is <|im_end|>?")])
    assert ids.count(made.convert_tokens_to_ids("<|im_end|>")) == 1
    assert "What is <|im_end|>?" in made.decode(ids)


def test_a_turn_that_ends_in_a_control_token_gets_no_further_eos() -> None:
    for eos in ("<|im_end|>", "<|endoftext|>"):
        made = tokenizer(eos=eos)
        (row,) = RowEncoder(made).pairs([render("chat", "Add.")], [complete("chat", "x")])
        assert made.decode(row.ids[row.prompt_tokens :]) == "x<|im_end|>"


def test_infilling_is_written_with_the_tokenizers_tokens() -> None:
    made = tokenizer()
    prompt, completion = fill_in("return a + b", 7, 8)
    assert decoded(made, prompt + completion) == (
        "<fim_prefix>return <fim_suffix> + b<fim_middle>a"
    )
    (ids,) = RowEncoder(made).encode([prompt])
    assert ids[-1] == made.convert_tokens_to_ids("<fim_middle>")


@pytest.mark.parametrize("suffix_first", [False, True])
def test_without_a_token_before_the_middle_the_suffix_comes_first(suffix_first: bool) -> None:
    made = legacy_llama(["[PREFIX]", "[MIDDLE]", "[SUFFIX]"])
    encoder = RowEncoder(made)
    (row,) = encoder.pairs([fill_prompt("a = (", ")\nfim_prefix", suffix_first)], ["b"])
    prompt = made.convert_ids_to_tokens(row.ids[: row.prompt_tokens])
    assert prompt.index("<s>") == 0 and prompt.index("[SUFFIX]") == 1
    at = prompt.index("[PREFIX]")
    texts = (made.decode(row.ids[2:at]), made.decode(row.ids[at + 1 : row.prompt_tokens]))
    assert [text.strip() for text in texts] == [")\nfim_prefix", "a = ("]


def test_a_tokenizer_without_the_tokens_is_refused() -> None:
    bare = RowEncoder(tokenizer(["<|endoftext|>"], template=None))
    with pytest.raises(PipelineError, match="no tokens for infilling, such as <fim_prefix>"):
        bare.encode([fill_in("abc", 0, 1)[0]])
    with pytest.raises(PipelineError, match="no chat template"):
        bare.encode([render("chat", "Add.")])


def test_texts_with_and_without_marks_share_a_batch() -> None:
    marks = RowEncoder(tokenizer())
    texts = ["plain", render("chat", "Add."), "", fill_in("abc", 1, 2)[0]]
    assert marks.encode(texts) == [marks.encode([text])[0] for text in texts]


def test_marks_can_be_read() -> None:
    assert readable(render("chat", "Add.") + complete("chat", "x")) == (
        "[user]Add.[assistant]x[end]"
    )
