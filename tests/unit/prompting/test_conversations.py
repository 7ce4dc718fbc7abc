"""Rows with conversations: what the stage `prompt` passes on, and what becomes of it as tokens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tasks.core.rows import row_schema
from tasks.core.text.prompt_templates import PromptTemplate
from tasks.core.text.row_encoder import RowEncoder
from tasks.core.text.special_tokens import readable
from tasks.prompting.format_prompts import COLUMNS, PromptFormatter
from tests.unit.core.text.chat_templates import model

TURNS = [
    {"role": "user", "content": "Add."},
    {"role": "assistant", "content": "a + b"},
    {"role": "user", "content": "Subtract."},
    {"role": "assistant", "content": "a - b"},
]
OWN = "<|im_start|>{instruction}\n{output}<|im_end|>"
TOOL = {"type": "function", "function": {"name": "look_up"}}
Format = Callable[..., dict[str, Any]]


def formatted(
    template: str, conversation: Any = None, system: str = "", kind: str = "conversation"
) -> dict[str, Any]:
    chat = json.dumps(conversation) if conversation else ""
    row = ["r", "Add.", "1", "a + b", kind, chat, 1]
    batch = pa.table([[value] for value in row], names=COLUMNS)
    formatter = PromptFormatter(PromptTemplate(template, system), 0, 0)
    table = formatter.format(batch, pa.array(["p"]), np.array([True]))
    assert table.schema.equals(row_schema.PROMPTS)
    return table.to_pylist()[0]


def test_a_plain_row_has_no_conversation_and_the_same_text_as_before() -> None:
    row = formatted("instruction", kind="instruction")
    assert (row["conversation"], row["kind"]) == ("", "")
    assert row["prompt"].endswith("### Instruction:\nAdd.\n\n### Input:\n1\n\n### Output:\n")


def test_a_chat_template_gets_the_messages_and_the_prompt_ends_before_the_last_answer() -> None:
    row = formatted("chat", {"messages": TURNS}, "Be brief.")
    passed = json.loads(row["conversation"])
    assert passed["messages"] == [{"role": "system", "content": "Be brief."}, *TURNS]
    assert readable(row["prompt"]) == (
        "[system]Be brief.[user]Add.[assistant]a + b[user]Subtract.[assistant]"
    )
    assert readable(row["completion"]) == "a - b[end]"


def test_a_plain_row_in_a_chat_template_is_a_conversation_of_one_turn() -> None:
    passed = json.loads(formatted("chat", kind="instruction")["conversation"])
    assert [m["content"] for m in passed["messages"]] == ["Add.\n\n1", "a + b"]


def test_a_systems_own_text_is_kept() -> None:
    messages = [{"role": "system", "content": "Own."}, *TURNS]
    passed = json.loads(formatted("chat", {"messages": messages}, "Be brief.")["conversation"])
    assert passed["messages"][0]["content"] == "Own."


def test_a_template_of_text_writes_the_turns_one_after_another() -> None:
    row = formatted("instruction", {"messages": TURNS, "tools": [TOOL]}, "Be brief.")
    parts = json.loads(row["conversation"])["segments"]
    assert "".join(part["text"] for part in parts) == (
        "Be brief.\n\nTools:\n"
        '{"function": {"name": "look_up"}, "type": "function"}\n\n'
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nAdd.\n\n### Output:\na + b\n\n### End\n\n"
        "### Instruction:\nSubtract.\n\n### Output:\na - b\n\n### End"
    )
    assert [part["train"] for part in parts] == [False, None, False, None]
    assert row["completion"] == "a - b\n\n### End"
    assert row["prompt"] + row["completion"] == "".join(part["text"] for part in parts)


def test_calls_and_results_of_tools_are_written_as_json_and_text() -> None:
    call = {"function": {"name": "look_up", "arguments": '{"a": 1}'}}
    messages = [
        TURNS[0],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "7"},
        TURNS[1],
    ]
    parts = json.loads(formatted("instruction", {"messages": messages})["conversation"])["segments"]
    assert parts[1]["text"].startswith('{"arguments": {"a": 1}, "name": "look_up"}')
    assert parts[2]["text"] == "\n\n### Tool result:\n7\n\n### Output:\n"


def test_control_tokens_of_a_users_template_mask_all_turns() -> None:
    made = model("ChatML")
    chat = json.loads(formatted(OWN, {"messages": TURNS})["conversation"])
    (row,) = RowEncoder(made).conversations([chat], "output")
    assert made.decode(row.ids) == (
        "<|im_start|>Add.\na + b<|im_end|>\n\n<|im_start|>Subtract.\na - b<|im_end|><|endoftext|>"
    )
    assert [made.decode(row.ids[a:b]) for a, b in row.spans] == [
        "a + b<|im_end|>",
        "a - b<|im_end|><|endoftext|>",
    ]


def test_segments_are_passed_on_whatever_the_template() -> None:
    parts = [{"text": "# add\n", "train": False}, {"text": "a + b", "train": True}]
    for template in ("instruction", "chat", "completion"):
        row = formatted(template, {"segments": parts}, kind="segments")
        assert json.loads(row["conversation"]) == {"segments": parts}
        assert (row["prompt"], row["completion"]) == ("# add\n", "a + b")


def test_a_text_is_trained_as_it_is_whatever_the_template() -> None:
    for template in ("instruction", "chat"):
        row = formatted(template, kind="text")
        fields = ("prompt", "completion", "conversation", "kind")
        assert tuple(row[name] for name in fields) == ("", "a + b", "", "text")


def test_a_hole_is_infilling() -> None:
    fill = {"prefix": "a", "middle": " +", "suffix": " b"}
    row = formatted("instruction", {"fill": fill}, kind="fill")
    assert readable(row["prompt"]) == "[fim_prefix]a[fim_suffix] b[fim_middle]"
    assert row["completion"] == " +"


@pytest.mark.parametrize("template", ["instruction", "{instruction}", "completion"])
def test_a_system_text_is_never_lost(template: str) -> None:
    row = formatted(template, {"messages": TURNS}, "Be brief.")
    assert row["prompt"].startswith("Be brief.\n\n")


def test_a_users_template_may_place_the_system_text(tmp_path: Path) -> None:
    own = "S: {system}\n\nQ: {instruction}\nA: {output}"
    assert formatted(own, {"messages": TURNS[:2]}, "Hi.")["prompt"] == "S: Hi.\n\nQ: Add.\nA: "
    assert formatted(own, {"messages": TURNS[:2]})["prompt"] == "Q: Add.\nA: "
