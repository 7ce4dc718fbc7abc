from pathlib import Path

import pytest

from tasks.core.errors import PipelineError
from tasks.core.settings.config import check
from tasks.core.text.prompt_templates import (
    END,
    TEMPLATES,
    complete,
    end_of,
    fill_in,
    render,
)
from tasks.core.text.special_tokens import PLACEHOLDER, literal, readable

GOLDEN = Path(__file__).parents[3] / "golden"
OUTPUT = "def add(a, b):\n    return a + b"


def golden(name: str) -> str:
    return (GOLDEN / name).read_bytes().decode().removesuffix("\n")


def test_the_instruction_template_is_the_recipes_to_the_byte() -> None:
    text = render("instruction", "Add two numbers.", "1 and 2") + complete("instruction", OUTPUT)
    assert text == golden("prompt_with_input.txt")


def test_without_input_its_section_is_left_out() -> None:
    text = render("instruction", "Add two numbers.") + complete("instruction", OUTPUT)
    assert text == golden("prompt_without_input.txt")


def test_the_prompt_ends_where_the_model_begins_to_write() -> None:
    assert render("instruction", "Add.").endswith("\n\n### Output:\n")
    assert complete("instruction", "x = 1") == f"x = 1\n\n{END}"


def test_the_completion_template_changes_no_byte_of_a_row() -> None:
    assert render("completion", "def add(a, b):\n", "    ") == "def add(a, b):\n    "
    assert complete("completion", "return a + b") == "return a + b"


def test_an_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=", ".join(TEMPLATES)):
        render("chatt", "Add.")


def test_chat_has_placeholders_for_what_the_tokenizer_writes() -> None:
    prompt, completion = render("chat", "Add.", "1 and 2"), complete("chat", "x = 1")
    assert PLACEHOLDER.fullmatch(prompt)
    assert readable(prompt + completion) == "[user]Add.\n\n1 and 2[assistant]x = 1[end]"


def test_infilling_gives_prefix_and_suffix_and_asks_for_the_middle() -> None:
    assert fill_in("return a + b", 7, 8) == (
        "\0fim_prefix\0return \0fim_suffix\0 + b\0fim_middle\0",
        "a",
    )


OWN = "Task: {instruction}\n\nGiven: {input}\n\nAnswer {now}:\n{output}\n<done>"


def test_a_template_of_the_user_is_kept_to_the_byte() -> None:
    own = OWN.replace("{now}", "now")
    text = render(own, "Add two numbers.", "1 and 2") + complete(own, OUTPUT)
    assert literal(text) == golden("prompt_by_user.txt")
    assert end_of(own) == "<done>"


def test_a_paragraph_for_the_input_is_left_out_where_there_is_none() -> None:
    own = OWN.replace("{now}", "now")
    assert render(own, "Add.") == "Task: Add.\n\nAnswer now:\n"


def test_without_a_place_for_it_the_input_follows_the_instruction() -> None:
    assert render("Q: {instruction}\nA: ", "Add.", "1") == "Q: Add.\n\n1\nA: "


def test_braces_of_a_row_are_no_fields() -> None:
    assert render("{instruction}|{input}", "{input}{x}", "{instruction}") == (
        "{input}{x}|{instruction}"
    )


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            OWN,
            r"unknown field \{now\}; there are \{system\}, \{instruction\}, \{input\}, \{output\}",
        ),
        ("Do {input}", r"has no field \{instruction\}"),
        ("Do it", r"neither instruction, completion, chat nor a text with \{instruction\}"),
        ("{instruction}{output}{input}", r"a field after \{output\}"),
    ],
)
def test_a_wrong_template_is_refused_with_what_is_wrong(template: str, problem: str) -> None:
    with pytest.raises(PipelineError, match=problem):
        check({"prompt": {"template": template}})
