from pathlib import Path

import pytest

from tasks.core.templates import END, TEMPLATES, complete, render

GOLDEN = Path(__file__).parents[2] / "golden"
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
        render("chat", "Add.")
