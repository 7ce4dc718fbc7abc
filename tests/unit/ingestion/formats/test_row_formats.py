"""Every row format on records as they are published, without a mapping."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core.errors import PipelineError

TOOL = {
    "type": "function",
    "function": {"name": "stock", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "stock", "arguments": '{"b": 1}'}}

Read = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def read(ingest, tmp_path: Path) -> Read:
    """Rows of records written as JSONL; none of them may be unreadable."""

    def run_on(*records: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        _, rows, unreadable = ingest({"kind": "files", "path": str(path), **settings})
        assert unreadable == []
        return rows

    return run_on


@pytest.fixture
def problem(ingest, tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    """Why a record has no row, next to a good one of the same format."""

    def run_on(good: dict[str, Any], bad: dict[str, Any]) -> str:
        path = tmp_path / "data.jsonl"
        path.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
        _, rows, (entry,) = ingest({"kind": "files", "path": str(path)})
        assert len(rows) == 1 and entry["line"] == 2
        return str(entry["problem"])

    return run_on


def said(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def conversation(row: dict[str, Any]) -> Any:
    return json.loads(row["conversation"])


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        ({"question": "q", "answer": "a"}, ("q", "", "a")),
        ({"question": "q", "context": "c", "response": "a"}, ("q", "c", "a")),
        ({"Instruction": "q", "Input": "i", "Output": "a"}, ("q", "i", "a")),
        ({"problem": "q", "solution": "a"}, ("q", "", "a")),
        ({"instruction": "q", "output": "a", "text": "all of it"}, ("q", "", "a")),
        ({"prompt": "q", "completion": "a"}, ("q", "", "a")),
        ({"prompt": "q", "response": "a"}, ("q", "", "a")),
    ],
)
def test_texts_under_usual_names_are_read_without_a_mapping(read: Read, record, texts) -> None:
    (row,) = read(record)
    assert (row["instruction"], row["input"], row["output"]) == texts
    assert (row["kind"], row["conversation"]) == ("instruction", "")


def test_two_columns_that_could_be_the_answer_are_an_error_and_its_remedy_works(read: Read) -> None:
    record = {"question": "q", "answer": "a", "solution": "s"}
    with pytest.raises(PipelineError, match="the output could be") as error:
        read(record)
    assert "`columns: {output: solution}`" in error.value.remedy
    assert read(record, columns={"output": "solution"})[0]["output"] == "s"


def test_alpaca_history_and_system_are_context_and_the_output_is_trained(read: Read) -> None:
    (row,) = read(
        {"instruction": "q2", "input": "i", "output": "a2", "system": "s", "history": [["q", "a"]]}
    )
    assert conversation(row)["messages"] == [
        said("system", "s"),
        said("user", "q"),
        said("assistant", "a", train=False),
        said("user", "q2\n\ni"),
        said("assistant", "a2"),
    ]
    assert (row["kind"], row["instruction"], row["input"], row["output"]) == (
        "conversation",
        "s\n\nq\n\na\n\nq2\n\ni",
        "",
        "a2",
    )


def test_alpaca_record_without_system_and_history_is_a_plain_instruction(read: Read) -> None:
    rows = read(
        {"instruction": "q", "output": "a", "system": "s", "history": []},
        {"instruction": "q2", "input": "i", "output": "a", "system": "", "history": None},
    )
    assert [row["kind"] for row in rows] == ["conversation", "instruction"]
    assert rows[1]["input"] == "i"


def test_messages_with_tools_keep_calls_results_and_tools(read: Read) -> None:
    messages = [
        said("developer", "s"),
        said("user", [{"type": "text", "text": "How "}, {"type": "text", "text": "many?"}]),
        said("assistant", None, tool_calls=[CALL]),
        said("tool", "3", tool_call_id="c1"),
        said("assistant", "Three."),
    ]
    (row,) = read({"messages": messages, "tools": [TOOL]})
    assert conversation(row) == {
        "messages": [said("system", "s"), said("user", "How many?"), *messages[2:]],
        "tools": [TOOL],
    }
    assert row["instruction"] == "s\n\nHow many?\n\n3"
    assert row["output"] == f"{json.dumps([CALL])}\n\nThree."


def test_tools_and_arguments_keep_the_order_of_their_fields(read: Read) -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "d", "a": 1}}
    call = {"type": "function", "function": {"name": "f", "arguments": {"z": 1, "b": 2}}}
    messages = [said("user", "q"), said("assistant", "", tool_calls=[call])]
    (row,) = read({"messages": messages, "tools": [tool]})
    assert json.dumps(tool, separators=(",", ":")) in row["conversation"]
    assert '{"z":1,"b":2}' in row["conversation"]


@pytest.mark.parametrize("mask", [{"weight": 0}, {"train": False}])
def test_answer_that_is_masked_in_the_data_is_not_trained(read: Read, mask) -> None:
    first = said("assistant", "no", **mask)
    (row,) = read({"messages": [said("user", "q"), first, said("assistant", "yes")]})
    assert row["output"] == "yes"
    assert conversation(row)["messages"][1] == said("assistant", "no", train=False)


def test_sharegpt_turns_become_messages(read: Read) -> None:
    turns = [
        {"from": "human", "value": "How many?"},
        {"from": "function_call", "value": '{"name": "stock", "arguments": {"b": 1}}'},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "Three."},
    ]
    tools = json.dumps([TOOL["function"]])
    (row,) = read({"conversations": turns, "system": "s", "tools": tools})
    call = {"type": "function", "function": {"name": "stock", "arguments": {"b": 1}}}
    assert conversation(row) == {
        "messages": [
            said("system", "s"),
            said("user", "How many?"),
            said("assistant", None, tool_calls=[call]),
            said("tool", "3"),
            said("assistant", "Three."),
        ],
        "tools": [TOOL],
    }


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        ([], "messages is empty"),
        ("text", "expected a list of objects"),
        ([said("user", "q")], "no message of an assistant"),
        ([said("judge", "q"), said("assistant", "a")], "message 1 has the role 'judge'"),
        ([said("user", " "), said("assistant", "a")], "message 1 (user) is empty"),
        (
            [said("user", "q"), said("assistant", "a\0")],
            "message 2 (assistant) contains a NUL byte",
        ),
        ([said("user", [{"type": "image_url"}]), said("assistant", "a")], "only text is read"),
        (
            [said("user", "\ud800"), said("assistant", "a")],
            "message 1 (user) has half of a character",
        ),
        ([said("user", 3), said("assistant", "a")], "message 1 (user) is of type int"),
    ],
)
def test_conversation_that_can_not_be_read_is_one_ledger_entry(problem, bad, wanted) -> None:
    good = [said("user", "q"), said("assistant", "a")]
    assert wanted in problem({"messages": good}, {"messages": bad})


def test_prompt_and_completion_as_messages_train_the_completion_only(read: Read) -> None:
    prompt = [said("user", "q"), said("assistant", "a"), said("user", "q2")]
    (row,) = read({"prompt": prompt, "completion": [said("assistant", "a2")]})
    assert row["output"] == "a2" and row["instruction"] == "q\n\na\n\nq2"


def test_text_is_one_row_without_instruction(read: Read) -> None:
    (row,) = read({"text": "def f(): ...", "url": "x"})
    assert (row["kind"], row["instruction"], row["output"]) == ("text", "", "def f(): ...")


def test_segments_keep_their_masks(read: Read) -> None:
    segments = [{"text": "# f\n", "label": False}, {"text": "f()", "label": True}]
    (row,) = read({"segments": segments})
    assert (row["kind"], row["instruction"], row["output"]) == ("segments", "# f\n", "f()")
    assert conversation(row) == {
        "segments": [{"text": "# f\n", "train": False}, {"text": "f()", "train": True}]
    }


PAIRS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "messages": {"chosen": [said("user", "q"), said("assistant", "a")], "rejected": "b"},
    "answers as messages": {
        "prompt": "q",
        "chosen": [said("assistant", "a")],
        "rejected": [said("assistant", "b")],
    },
    "transcripts": {
        "chosen": "\n\nHuman: q\n\nAssistant: a",
        "rejected": "\n\nHuman: q\n\nAssistant: b",
    },
    "question and system": {"system": "", "question": "q", "chosen": "a", "rejected": "b"},
    "j and k": {"question": "q", "response_j": "a", "response_k": "b"},
    "accepted": {"prompt": "q", "accepted": "a", "rejected": "b"},
    "outputs": {
        "input": {"messages": [said("user", "q")]},
        "preferred_output": [said("assistant", "a")],
        "non_preferred_output": [said("assistant", "b")],
    },
    "end of a transcript": {
        "prompt": "\n\nHuman: q\n\nAssistant:",
        "chosen": " a",
        "rejected": " b",
    },
    "scores": {
        "instruction": "q",
        "completions": [{"response": "b", "overall_score": 2.0}, {"response": "a", "score": "8"}],
    },
    "lists of answers and scores": {"prompt": "q", "responses": ["b", "a"], "scores": [0, 0.5]},
    "lists of answers and ranks": {"prompt": "q", "responses": ["b", "a"], "ranks": [2, 1]},
    "ranks": {
        "prompt": "\n\nHuman: q\n\nAssistant: ",
        "answers": [{"answer": "b", "rank": 2.0}, {"answer": "a", "rank": 1.0}],
    },
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_preference_pairs_are_an_error_whose_remedy_takes_the_chosen_answers(
    read: Read, pair
) -> None:
    with pytest.raises(
        PipelineError, match=r"preference pairs, chosen and|lists of answers"
    ) as error:
        read(pair)
    assert "`take: chosen`" in error.value.remedy
    (row,) = read(pair, take="chosen")
    assert (row["instruction"], row["output"]) == ("q", "a")


def test_answers_that_are_labelled_as_not_wanted_are_not_trained_on(ingest, tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    rated = [{"prompt": "q", "completion": c, "label": c == "good"} for c in ("good", "bad")]
    path.write_text("".join(json.dumps(record) + "\n" for record in rated))
    with pytest.raises(PipelineError, match="answers with a label") as error:
        ingest({"kind": "files", "path": str(path)})
    assert "`take: chosen`" in error.value.remedy
    _, rows, (entry,) = ingest({"kind": "files", "path": str(path), "take": "chosen"})
    assert [row["output"] for row in rows] == ["good"] and "label is False" in entry["problem"]


def test_take_without_preference_pairs_is_an_error_whose_remedy_works(read: Read, row) -> None:
    with pytest.raises(PipelineError, match="no file has preference pairs") as error:
        read(row(), take="chosen")
    assert "Remove `take`" in error.value.remedy
    assert read(row())


def test_format_of_the_settings_overrides_detection(read: Read) -> None:
    record = {"instruction": "q", "output": "a", "text": "t"}
    assert [read(record, format=f)[0]["output"] for f in ("instruction", "text")] == ["a", "t"]


def test_format_that_does_not_fit_names_the_one_that_does(read: Read) -> None:
    record = {"messages": [said("user", "q"), said("assistant", "a")]}
    with pytest.raises(PipelineError, match="a chat format") as error:
        read(record, format="instruction")
    assert "`format: messages`" in error.value.remedy
    assert read(record, format="messages")


def test_unknown_chat_names_its_fields(read: Read) -> None:
    turns = [{"speaker": "a", "said": "q"}, {"speaker": "b", "said": "a"}]
    with pytest.raises(PipelineError, match=r"chat format that is not known.*speaker, said"):
        read({"turns": turns}, {"turns": turns})


def test_each_file_has_a_format_of_its_own(ingest, tmp_path, write_jsonl, row) -> None:
    write_jsonl(tmp_path / "a.jsonl", row())
    write_jsonl(tmp_path / "b.jsonl", {"text": "t", "id": 1}, {"text": "u", "id": 2})
    summary, rows, _ = ingest({"kind": "files", "path": str(tmp_path)})
    assert [r["kind"] for r in rows] == ["instruction", "text", "text"]
    assert summary.counts["read as instruction"] == 1 and summary.counts["read as text"] == 2
    assert summary.counts["column not used: id"] == 2
    assert summary.line.endswith("; read as instruction, text")


def test_unused_column_that_carries_meaning_is_in_the_summary_line(
    ingest, tmp_path, write_jsonl, row
) -> None:
    write_jsonl(tmp_path / "a.jsonl", row(input="i", context="c", score=1))
    summary, _, _ = ingest({"kind": "files", "path": str(tmp_path)})
    assert summary.line.endswith("; not used: context")


def test_row_id_of_a_conversation_depends_on_its_masks(read: Read) -> None:
    messages = [said("user", "q"), said("assistant", "a"), said("assistant", "b")]
    (first,) = read({"messages": messages})
    messages[0]["role"] = "system"
    (second,) = read({"messages": messages})
    assert first["row_id"] != second["row_id"] and first["output"] == second["output"]


ANSWERED = [said("user", "q"), said("assistant", "a")]
USED = [
    said("user", "q"),
    {
        "content": "I look.",
        "role": "assistant",
        "tool_calls": [
            {"id": "t", "type": "function", "function": {"name": "stock", "arguments": {"b": 1}}}
        ],
    },
    said("tool", "3", tool_call_id="t"),
    said("assistant", "a"),
]
THOUGHT = [said("user", "q"), said("assistant", "a", reasoning_content="hm")]


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (
            {
                "messages": [
                    said("user", [{"type": "text", "text": "q"}]),
                    said(
                        "assistant",
                        [
                            {"type": "text", "text": "I look."},
                            {"type": "tool_use", "id": "t", "name": "stock", "input": {"b": 1}},
                        ],
                    ),
                    said("user", [{"type": "tool_result", "tool_use_id": "t", "content": "3"}]),
                    said("assistant", [{"type": "text", "text": "a"}]),
                ]
            },
            USED,
        ),
        (
            {
                "messages": [
                    said("user", "q"),
                    said(
                        "assistant",
                        [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}],
                    ),
                ]
            },
            THOUGHT,
        ),
        ({"messages": [said("user", "q"), said("assistant", "a", thinking="hm")]}, THOUGHT),
        (
            {
                "messages": [
                    said("user", "q"),
                    said("assistant", "hm", channel="analysis"),
                    said("assistant", "a", channel="final"),
                ]
            },
            THOUGHT,
        ),
        (
            {
                "systemInstruction": {"parts": [{"text": "s"}]},
                "contents": [
                    {"role": "user", "parts": [{"text": "q"}]},
                    {"role": "model", "parts": [{"text": "a"}]},
                ],
            },
            [said("system", "s"), *ANSWERED],
        ),
        (
            {
                "contents": [
                    {"role": "user", "parts": [{"text": "q"}]},
                    {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
                    {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": 3}}]},
                    {"role": "model", "parts": [{"text": "a"}]},
                ]
            },
            [
                said("user", "q"),
                {
                    "content": None,
                    "role": "assistant",
                    "tool_calls": [
                        {"type": "function", "function": {"name": "f", "arguments": {}}}
                    ],
                },
                said("tool", "3", name="f"),
                said("assistant", "a"),
            ],
        ),
        ({"id": "1", "body": {"model": "m", "messages": ANSWERED}}, ANSWERED),
        (
            {
                "prompt": {
                    "text": "q",
                    "role": "prompter",
                    "replies": [
                        {"text": "worse", "role": "assistant", "rank": 1, "replies": []},
                        {"text": "a", "role": "assistant", "rank": 0, "replies": []},
                    ],
                }
            },
            ANSWERED,
        ),
        ({"id": "1", "data": ["q", "a"]}, ANSWERED),
        ({"chat": "USER: q\n\n\nASSISTANT: a <|endoftext|>\n\n\n"}, ANSWERED),
    ],
    ids=[
        *("tool_use", "thinking", "thinking as a field", "Harmony", "Gemini", "functionCall"),
        *("in an object", "tree", "alternating texts", "transcript"),
    ],
)
def test_conversations_of_other_programs_become_messages(read: Read, record, wanted) -> None:
    (row,) = read(record)
    assert conversation(row)["messages"] == wanted


def test_a_commit_is_a_question_with_the_file_before_and_after(read: Read) -> None:
    (row,) = read({"old_file": "f", "old_contents": "x", "new_contents": "y", "message": "m"})
    assert (row["instruction"], row["input"], row["output"]) == ("m", "x", "y")


def test_rows_of_single_messages_are_an_error_and_both_remedies_work(read: Read) -> None:
    rows = [{"role": "prompter", "text": "q", "parent_id": "1"}, {"role": "assistant", "text": "a"}]
    with pytest.raises(PipelineError, match="one message") as raised:
        read(*rows)
    assert "format: text" in raised.value.remedy and '{"messages": [' in raised.value.remedy
    assert [row["output"] for row in read(*rows, format="text")] == ["q", "a"]
    assert conversation(read({"messages": ANSWERED})[0])["messages"] == ANSWERED


def test_a_remedy_names_no_column_about_the_row(read: Read) -> None:
    record = {"question": "q", "answers": [{"author": "x", "a_id": "y", "text": "a"}]}
    with pytest.raises(PipelineError) as raised:
        read(record)
    assert "`columns: {output: answers.0.text}`" in raised.value.remedy
    assert read(record, columns={"output": "answers.0.text"})[0]["output"] == "a"


RENDERED = {
    "ChatML": "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n"
    "<|im_start|>assistant\na<|im_end|>\n",
    "Llama 2": "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\nq [/INST] a </s>",
    "Llama 3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\na<|eot_id|>",
    "Gemma": "<bos><start_of_turn>system\ns<end_of_turn>\n<start_of_turn>user\nq<end_of_turn>\n"
    "<start_of_turn>model\na<end_of_turn>\n",
    "Zephyr": "<|system|>\ns</s>\n<|user|>\nq</s>\n<|assistant|>\na</s>\n",
    "Alpaca": "s\n\n### Instruction:\nq\n\n### Response:\na",
    "Guanaco": "s### Human: q### Assistant: a",
    "Vicuna": "s USER: q ASSISTANT: a</s>",
    "lines": "System: s\nUser: q\nAssistant: a",
}


@pytest.mark.parametrize("text", RENDERED.values(), ids=RENDERED)
def test_text_that_is_a_rendered_chat_is_named_and_its_remedy_reads_the_messages(
    ingest, tmp_path, write_jsonl, text
) -> None:
    write_jsonl(tmp_path / "a.jsonl", {"text": text})
    source = {"kind": "files", "path": str(tmp_path)}
    summary, (row,), _ = ingest(source)
    assert row["output"] == text and "look like chats in" in summary.line
    columns = yaml.safe_load(summary.line.partition("`")[2].partition("`")[0])
    _, (row,), _ = ingest(source | columns)
    assert conversation(row)["messages"] == [said("system", "s"), *ANSWERED]


def test_rendered_chat_in_two_columns_is_read_with_the_remedy(ingest, tmp_path, write_jsonl):
    write_jsonl(tmp_path / "a.jsonl", {"prompt": "<s>[INST] q [/INST]", "completion": "a </s>"})
    source = {"kind": "files", "path": str(tmp_path)}
    line = ingest(source)[0].line
    _, (row,), _ = ingest(source | yaml.safe_load(line.partition("`")[2].partition("`")[0]))
    assert conversation(row)["messages"] == ANSWERED


@pytest.mark.parametrize("form", [None, "text"])
def test_code_about_a_template_and_a_format_that_is_set_have_no_note_on_chats(
    ingest, tmp_path, write_jsonl, form
) -> None:
    code = "def render(q):\n    return '<|im_start|>user\\n' + q + '<|im_start|>assistant\\n'\n"
    write_jsonl(tmp_path / "a.jsonl", {"text": RENDERED["ChatML"] if form else code})
    summary = ingest({"kind": "files", "path": str(tmp_path), "format": form})[0]
    assert "look like chats" not in summary.line


def test_headings_in_an_answer_are_part_of_it(read: Read) -> None:
    text = "### Instruction:\nq\n\n### Input:\ni\n\n### Response:\na\n\n### Output:\n7"
    (row,) = read({"text": text}, columns={"messages": "text"})
    assert [m["content"] for m in conversation(row)["messages"]] == [
        "q\n\ni",
        "a\n\n### Output:\n7",
    ]


def test_prefix_of_a_system_text_in_a_column_of_its_own_is_left_out(read: Read) -> None:
    chat = "USER: q\n\n\nASSISTANT: a <|endoftext|>\n\n\n"
    (row,) = read({"system": "SYSTEM: s", "chat": chat})
    assert conversation(row)["messages"] == [said("system", "s"), *ANSWERED]


def test_a_transcript_in_the_only_column_is_a_conversation(read: Read) -> None:
    (row,) = read({"sample": "SYSTEM: s\n\nUSER: q\n\nASSISTANT: a <|endoftext|>"})
    assert conversation(row)["messages"] == [said("system", "s"), *ANSWERED]


@pytest.mark.parametrize(
    "record",
    [
        {"Messages": [{"Role": "User", "Content": "q"}, {"Role": "Assistant", "Content": "a"}]},
        {"Conversations": [{"From": "human", "Value": "q"}, {"From": "gpt", "Value": "a"}]},
        {"dialogue": [{"speaker": "user", "text": "q"}, {"speaker": "bot", "text": "a"}]},
        {"turns": [{"Human": "q", "Assistant": "a"}]},
    ],
)
def test_names_of_fields_in_upper_case_and_speakers_are_read(read: Read, record) -> None:
    assert conversation(read(record)[0])["messages"] == ANSWERED


def test_replies_of_a_tree_that_are_not_taken_are_counted(ingest, tmp_path, write_jsonl) -> None:
    below = {"role": "assistant", "text": "b", "rank": 1, "replies": [{"role": "x", "text": "c"}]}
    best = {"role": "assistant", "text": "a", "rank": 0, "replies": []}
    root = {"role": "prompter", "text": "q", "replies": [below, best]}
    write_jsonl(tmp_path / "a.jsonl", {"prompt": root})
    summary, (row,), _ = ingest({"kind": "files", "path": str(tmp_path)})
    assert conversation(row)["messages"] == ANSWERED
    assert summary.counts["other answers, not used"] == 2


CALLS = [{"name": "stock", "arguments": {"b": 1}}, {"name": "stock", "arguments": {"b": 2}}]


@pytest.mark.parametrize("form", [json.dumps, list])
def test_query_answers_and_tools_become_calls_of_the_tools(read: Read, form) -> None:
    tools = [{"name": "stock", "description": "d", "parameters": {"b": {"type": "int"}}}]
    (row,) = read({"id": 1, "query": "q", "answers": form(CALLS), "tools": form(tools)})
    found = conversation(row)
    assert found["tools"] == [{"type": "function", "function": tools[0]}]
    question, answer = found["messages"]
    assert question == said("user", "q") and answer["content"] is None
    assert [call["function"] for call in answer["tool_calls"]] == CALLS


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("count", [1, 2])
def test_each_instance_of_an_instruction_is_a_row(ingest, tmp_path, indent, count) -> None:
    example = {"input": "e", "output": "f", "explanation": "g"}
    task = {
        "Definition": ["Add."],
        "Positive Examples": [example],
        "Negative Examples": [],
        "Instances": [
            {"id": "1", "input": "1 1", "output": ["2", "two"]},
            {"id": "2", "input": "1 2", "output": ["3"]},
        ],
    }
    (tmp_path / "task.json").write_text(json.dumps(task, indent=indent) * count)
    summary, rows, unreadable = ingest({"kind": "files", "path": str(tmp_path)})
    found = [(row["instruction"], row["input"], row["output"]) for row in rows]
    assert found == [("Add.", "1 1", "2"), ("Add.", "1 1", "two"), ("Add.", "1 2", "3")] * count
    assert unreadable == [] and summary.counts["column not used: Positive Examples"] == 3 * count


def test_instances_of_an_instruction_without_other_lists_are_rows(read: Read) -> None:
    instances = [{"input": "", "output": "a"}, {"input": "i", "output": "b"}]
    rows = read({"id": "s", "instruction": "q", "instances": instances})
    assert [(row["instruction"], row["output"]) for row in rows] == [("q", "a"), ("q", "b")]


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        (
            {"prompt": "q", "response_a": "a", "response_b": "b", "winner": "model_a"},
            "'response_a'",
        ),
        ({"instruction": "q", "output_1": "a", "output_2": "b", "preference": 1}, "'output_1'"),
    ],
)
def test_answers_that_are_compared_are_an_error_whose_remedy_works(
    read: Read, record, columns
) -> None:
    with pytest.raises(PipelineError, match=f"compare two answers, columns {columns}") as raised:
        read(record)
    assert "`chosen`" in raised.value.remedy and "`take: chosen`" in raised.value.remedy
    question = record.get("prompt") or record["instruction"]
    (row,) = read({"prompt": question, "chosen": "a", "rejected": "b"}, take="chosen")
    assert row["output"] == "a"


@pytest.mark.parametrize("good", [True, 1])
def test_messages_and_answers_with_a_label_need_take(ingest, tmp_path, write_jsonl, good) -> None:
    bad = type(good)(0)
    rows = [{"messages": ANSWERED, "label": good}, {"messages": ANSWERED, "label": bad}]
    write_jsonl(tmp_path / "a.jsonl", *rows)
    source = {"kind": "files", "path": str(tmp_path)}
    with pytest.raises(PipelineError, match="answers with a label"):
        ingest(source)
    _, (row,), (entry,) = ingest({**source, "take": "chosen"})
    assert row["output"] == "a" and "labeled as bad" in entry["problem"]


def test_other_ranked_answers_are_counted(ingest, tmp_path, write_jsonl) -> None:
    answers = [{"response": text, "score": n} for n, text in enumerate("abc")]
    write_jsonl(tmp_path / "a.jsonl", {"prompt": "q", "completions": answers})
    summary, (row,), _ = ingest({"kind": "files", "path": str(tmp_path), "take": "chosen"})
    assert row["output"] == "c" and summary.counts["other answers, not used"] == 2


def test_an_exported_chat_is_read_along_its_newest_branch(ingest, tmp_path, write_jsonl) -> None:
    def node(above: str | None, below: list[str], role: str = "", text: str = "") -> dict[str, Any]:
        content = {"content_type": "text", "parts": [text]}
        found = {"author": {"role": role}, "content": content} if role else None
        return {"message": found, "parent": above, "children": below}

    nodes = {
        "0": node(None, ["1"]),
        "1": node("0", ["2"], "system", ""),
        "2": node("1", ["3", "4"], "user", "q"),
        "3": node("2", [], "assistant", "older"),
        "4": node("2", [], "assistant", "a"),
    }
    write_jsonl(tmp_path / "a.jsonl", *({"title": "t", "mapping": nodes} for _ in range(2)))
    summary, rows, _ = ingest({"kind": "files", "path": str(tmp_path)})
    assert [conversation(row)["messages"] for row in rows] == [ANSWERED] * 2
    assert summary.counts["other answers, not used"] == 2


@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [["q", "a"]]},
        {"conversations": {"from": ["human", "gpt"], "value": ["q", "a"]}},
        {"messages": [{"author": "user", "content": "q"}, {"author": "bot", "content": "a"}]},
        {"chat_messages": [{"sender": "human", "text": "q"}, {"sender": "assistant", "text": "a"}]},
    ],
    ids=["pairs", "lists of fields", "author", "sender"],
)
def test_conversations_in_other_shapes_become_messages(read: Read, record) -> None:
    assert [conversation(row)["messages"] for row in read(record, record)] == [ANSWERED] * 2


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        *(("task", "solution"), ("Human", "Assistant"), ("q", "a"), ("request", "response")),
        *(("description", "code"), ("docstring", "function"), ("intent", "snippet")),
        ("func_documentation_string", "func_code_string"),
    ],
)
def test_names_that_say_question_and_answer_need_no_mapping(read: Read, question, answer) -> None:
    (row,) = read({"id": 1, question: "q", answer: "a"})
    assert (row["kind"], row["instruction"], row["output"]) == ("instruction", "q", "a")


@pytest.mark.parametrize("name", ["body", "document", "raw_content"])
def test_a_single_column_of_text_is_text(read: Read, name) -> None:
    (row,) = read({"id": 1, name: "a"})
    assert (row["kind"], row["output"]) == ("text", "a")


def test_a_text_next_to_others_is_not_taken_for_all_of_the_row(read: Read) -> None:
    with pytest.raises(PipelineError, match="has column 'instruction', 'output'"):
        read({"title": "t", "body": "b", "accepted_answer": "a"})


def test_records_of_two_formats_in_one_file_are_read_as_both(ingest, tmp_path, write_jsonl, row):
    write_jsonl(tmp_path / "a.jsonl", {"messages": ANSWERED}, row(1), {"messages": ANSWERED})
    summary, rows, unreadable = ingest({"kind": "files", "path": str(tmp_path)})
    assert [bool(r["conversation"]) for r in rows] == [True, False, True] and not unreadable
    assert "read as instruction, messages" in summary.line


def test_a_column_that_is_empty_at_first_is_read_later(read: Read) -> None:
    rows = [{"instruction": f"q{n}", "context": "", "response": "a"} for n in range(70)]
    rows[-1]["context"] = "c"
    assert [row["input"] for row in read(*rows)] == [""] * 69 + ["c"]


def test_a_path_leads_into_json_in_a_text(read: Read) -> None:
    (row,) = read({"question": "q", "solutions": '["a", "b"]'}, columns={"output": "solutions.0"})
    assert row["output"] == "a"


@pytest.mark.parametrize("solutions", [["a", "b"], '["a", "b"]'])
def test_each_of_several_solutions_is_a_row(read: Read, solutions) -> None:
    rows = read({"problem_id": 1, "question": "q", "solutions": solutions})
    assert [(row["instruction"], row["output"]) for row in rows] == [("q", "a"), ("q", "b")]


def test_answers_to_choose_from_are_no_solutions(read: Read) -> None:
    with pytest.raises(PipelineError, match="has column 'output'"):
        read({"question": "q", "answers": ["a", "b"], "correct": 1})


def test_a_label_that_rates_nothing_is_left_out_with_the_format_of_the_remedy(read: Read) -> None:
    record = {"prompt": "q", "completion": "a", "label": 0}
    with pytest.raises(PipelineError) as raised:
        read(record)
    (form,) = re.findall(r"`format: (\w+)`", raised.value.remedy)
    assert read(record, format=form)[0]["output"] == "a"
