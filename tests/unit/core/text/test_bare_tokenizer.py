import pickle
from pathlib import Path
from typing import Any

import pytest

from tasks.core.text.bare_tokenizer import BareTokenizer
from tasks.core.text.row_encoder import Encoded, RowEncoder
from tests.unit.core.text.chat_templates import MODELS, model
from tests.unit.core.text.tokenizers_for_tests import SENTENCEPIECE

TURNS = [
    {"role": "user", "content": "What is it?\n\n <|im_end|> 中"},
    {"role": "assistant", "content": "  return a + b\n"},
]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


def stored(tokenizer: Any, folder: Path) -> BareTokenizer:
    BareTokenizer.of(tokenizer).write(folder / "tokenizer")
    return BareTokenizer.read(folder / "tokenizer")


def encoded(tokenizer: Any, chat: dict[str, Any]) -> list[Encoded]:
    encoder = RowEncoder(tokenizer)
    return [*encoder.conversations([chat], "output"), *encoder.pairs(["def a"], ["dd(é):\n"])]


@pytest.mark.parametrize("name", MODELS)
def test_conversations_are_encoded_as_by_transformers(name: str, tmp_path: Path) -> None:
    chat = {"messages": TURNS, "date": "2001-02-03"}
    bare = stored(model(name), tmp_path)
    assert encoded(bare, chat) == encoded(model(name), chat)
    assert bare.get_vocab() == model(name).get_vocab()


@pytest.mark.parametrize("kind", SENTENCEPIECE)
def test_texts_of_sentencepiece_are_encoded_as_by_transformers(kind: str, tmp_path: Path) -> None:
    chat = {"segments": [{"text": " a\tb", "train": True}, {"text": "c  d", "train": False}]}
    bare = stored(SENTENCEPIECE[kind]([]), tmp_path)
    assert encoded(bare, chat) == encoded(SENTENCEPIECE[kind]([]), chat)


def test_of_several_templates_the_one_for_tools_renders_tools(tmp_path: Path) -> None:
    made = model("ChatML")
    made.chat_template = {"default": made.chat_template, "tool_use": model("Qwen2.5").chat_template}
    for tools in ([], TOOLS):
        chat = {"messages": TURNS, "tools": tools, "date": "2001-02-03"}
        assert encoded(stored(made, tmp_path), chat) == encoded(made, chat)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").write_bytes(pickle.dumps({}))
    with pytest.raises(TypeError, match="holds a dict"):
        BareTokenizer.read(tmp_path / "tokenizer")
