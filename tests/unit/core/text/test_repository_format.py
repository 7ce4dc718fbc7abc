"""A file after other files, in the form of the base."""

from typing import Any

import pytest

from tasks.core.text.repository_format import repository_prompt
from tasks.core.text.row_encoder import RowEncoder
from tasks.core.text.special_tokens import readable
from tests.unit.core.text.tokenizers_for_tests import byte_level

CONTEXT = {
    "repository": "shop",
    "comment": "//",
    "files": [["lib/a.js", "let a\n"], ["lib/b.js", "let b\n"]],
    "path": "app.js",
    "before": "",
    "output": "f()\n",
}


def encoder(*tokens: str) -> tuple[RowEncoder, Any]:
    tokenizer = byte_level(["<end>", *tokens], eos_token="<end>")
    return RowEncoder(tokenizer), tokenizer


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (
            ("<repo_name>", "<file_sep>"),
            "<repo_name>shop<file_sep>lib/a.js\nlet a\n<file_sep>lib/b.js\nlet b\n"
            "<file_sep>app.js\n",
        ),
        (
            ("<|repo_name|>", "<|file_sep|>"),
            "<|repo_name|>shop\n<|file_sep|>lib/a.js\nlet a\n<|file_sep|>lib/b.js\nlet b\n"
            "<|file_sep|>app.js\n",
        ),
        ((), "// lib/a.js\nlet a\n// lib/b.js\nlet b\n// app.js\n"),
    ],
    ids=["StarCoder2", "Qwen2.5-Coder", "no tokens for repositories"],
)
def test_files_are_in_the_repository_format_of_the_base(tokens: tuple[str, ...], text: str) -> None:
    rows, tokenizer = encoder(*tokens)
    (row,) = rows.pairs([repository_prompt(CONTEXT)], [CONTEXT["output"]])
    assert tokenizer.decode(row.ids) == f"{text}f()\n<end>"
    names = {tokenizer.convert_tokens_to_ids(token) for token in tokens}
    assert names <= set(row.ids)
    ((start, end),) = row.spans
    assert tokenizer.decode(row.ids[start:end]) == "f()\n<end>"
    assert row.exact


def test_control_tokens_in_a_path_stay_text() -> None:
    rows, tokenizer = encoder("<repo_name>", "<file_sep>")
    (ids,) = rows.prompts([repository_prompt({**CONTEXT, "path": "<file_sep>.js", "files": []})])
    assert ids.count(tokenizer.convert_tokens_to_ids("<file_sep>")) == 1


def test_placeholders_are_readable() -> None:
    assert readable(repository_prompt(CONTEXT)).startswith("[repository shop][file lib/a.js]let a")
