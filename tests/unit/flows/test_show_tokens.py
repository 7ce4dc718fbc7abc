import pytest

from flows.commands.show.tokens import DIM, GREEN, PLAIN, TokenView, token_lines
from tests.unit.core.text.tokenizers_for_tests import byte_level, legacy_llama

MADE = byte_level(["<|end|>"], eos_token="<|end|>")
VIEW = TokenView(MADE.backend_tokenizer)


def record(prompt: str, completion: str) -> dict:
    before, after = (
        MADE(text, split_special_tokens=True)["input_ids"] for text in (prompt, completion)
    )
    return {"row_id": "r", "input_ids": [*before, *after, 0], "prompt_tokens": len(before)}


def test_trained_tokens_are_told_from_masked_ones_without_color() -> None:
    row = record("Say it.\n", "x = 1")
    count = len(row["input_ids"])
    assert token_lines(row, VIEW, color=False) == [
        f"row r: {count} tokens, {row['prompt_tokens']} masked, "
        f"{count - row['prompt_tokens']} trained",
        "[masked]",
        "Say it.\n",
        "[/masked]",
        "[trained]",
        "x = 1⟦<|end|>⟧",
        "[/trained]",
    ]


def test_with_color_each_token_is_dim_or_green() -> None:
    text = token_lines(record("Say it.\n", "x = 1"), VIEW, color=True)[1]
    assert text == f"{DIM}Say it.\n{PLAIN}{GREEN}x = 1⟦<|end|>⟧{PLAIN}"


def test_a_control_token_is_told_from_its_name_in_the_data() -> None:
    row = record("Say <|end|>.", "<|end|>")
    lines = token_lines(row, VIEW, color=False)
    assert lines[2] == "Say <|end|>." and lines[5] == "<|end|>⟦<|end|>⟧"


def test_every_trained_part_of_a_conversation_is_shown() -> None:
    ids = [*MADE("a b c d")["input_ids"]]
    row = {"row_id": "r", "input_ids": ids, "prompt_tokens": 1, "spans": [1, 2, 4, len(ids)]}
    tags = [line for line in token_lines(row, VIEW, color=False) if line.startswith("[")]
    assert tags == [f"[{x}{n}]" for n in ("masked", "trained") * 2 for x in ("", "/")]


def test_ids_are_shown_on_demand_one_token_a_line() -> None:
    row = record("a", "b")
    lines = token_lines(row, VIEW, color=False, with_ids=True)[1:]
    assert [line.split() for line in lines] == [
        ["0", str(row["input_ids"][0]), "masked", "a"],
        ["1", str(row["input_ids"][1]), "trained", "b"],
        ["2", "0", "trained", "⟦<|end|>⟧"],
    ]


def test_the_first_token_of_a_sample_is_never_trained() -> None:
    row = record("", "a b")
    assert token_lines(row, VIEW, color=False)[0].endswith(
        f"1 masked, {len(row['input_ids']) - 1} trained"
    )


def test_spaces_between_parts_are_kept_for_sentencepiece() -> None:
    made = legacy_llama([])
    ids = made("a b", add_special_tokens=False)["input_ids"]
    row = {"row_id": "r", "input_ids": ids, "prompt_tokens": len(ids) - 1}
    lines = token_lines(row, TokenView(made.backend_tokenizer), color=False)
    assert lines[2] + lines[5] == "a b"


@pytest.mark.parametrize("color", [True, False])
def test_what_stands_in_a_row_cannot_steer_the_terminal(color: bool) -> None:
    shown = token_lines(record("\x1b]0;title\x07\u202eabc", "x"), VIEW, color)
    text = "\n".join(shown)
    assert "⟨U+001B⟩]0;title⟨U+0007⟩⟨U+202E⟩abc" in text
    assert "\x1b]" not in text and "\u202e" not in text
