"""Conversations by chat templates: the ids of transformers, with the answers as mask."""

import pickle
from datetime import date
from typing import Any

import pytest

from tasks.core.errors import PipelineError
from tasks.core.text.chat_environment import ChatTemplateError
from tasks.core.text.prompt_templates import PromptTemplate, chat_prompt
from tasks.core.text.row_encoder import Encoded, RowEncoder
from tests.unit.core.text.chat_templates import (
    MARKED,
    MODELS,
    TURNS,
    WITH_TOOLS,
    model,
)
from tests.unit.core.text.tokenizers_for_tests import byte_level

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = [
    {"role": "user", "content": "What is it? "},
    {"role": "assistant", "content": "It is a + b."},
]
SECOND = [
    {"role": "user", "content": " And then?"},
    {"role": "assistant", "content": "return a\n\n  中"},
]
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
CALL = {"name": "look_up", "arguments": {"article": "a"}}
USED = [
    FIRST[0],
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]},
    {"role": "tool", "content": "0"},
    FIRST[1],
]
TODAY = date.today().isoformat()


def encoded(
    made: Any, messages: list[dict[str, Any]], loss_on: str = "output", **more: Any
) -> Encoded:
    chat = {"messages": messages, "date": TODAY, **more}
    (row,) = RowEncoder(made).conversations([chat], loss_on)
    return row


def trained(made: Any, row: Encoded) -> list[str]:
    return [made.decode(row.ids[start:end]).strip() for start, end in row.spans]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("messages", [FIRST, FIRST + SECOND, [SYSTEM, *FIRST, *SECOND]])
def test_the_ids_of_a_conversation_are_those_of_transformers(name: str, messages: Any) -> None:
    if name == "Gemma" and SYSTEM in messages:
        pytest.skip("its template has no system role")
    made = model(name)
    row = encoded(made, messages)
    assert row.ids == made.apply_chat_template(messages, return_dict=False)
    assert row.exact


@pytest.mark.parametrize("name", MODELS)
def test_every_answer_and_its_end_is_trained_and_nothing_else(name: str) -> None:
    made = model(name)
    row = encoded(made, FIRST + SECOND)
    texts = [text.removeprefix("<think>\n\n</think>\n\n") for text in trained(made, row)]
    assert [text.partition("<")[0].strip() for text in texts] == [
        "It is a + b.",
        "return a\n\n  中",
    ]
    assert all(row.ids[end - 1] in RowEncoder(made).ends for _, end in row.spans)


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_calls_of_tools_are_trained_and_their_results_are_not(name: str) -> None:
    made = model(name)
    row = encoded(made, USED, tools=TOOLS)
    assert row.ids == made.apply_chat_template(USED, tools=TOOLS, return_dict=False)
    call, answer = trained(made, row)
    assert '"look_up"' in call and '"article": "a"' in call and "0" not in call
    assert "It is a + b." in answer


def test_qwen3_learns_its_empty_think_block_in_the_last_answer() -> None:
    made = model("Qwen3")
    assert trained(made, encoded(made, FIRST + SECOND)) == [
        "It is a + b.<|im_end|>",
        "<think>\n\n</think>\n\nreturn a\n\n  中<|im_end|>",
    ]


@pytest.mark.parametrize("name", MODELS)
def test_what_the_model_is_prompted_with_are_the_tokens_before_its_answer(name: str) -> None:
    made = model(name)
    row = encoded(made, FIRST + SECOND)
    template = PromptTemplate("chat", date=TODAY)
    prompt = chat_prompt(template, {"messages": [*FIRST, SECOND[0]]})
    assert RowEncoder(made).prompts([prompt])[0] == row.ids[: row.spans[-1][0]]


def test_the_mask_is_the_tokenizers_own_where_the_template_marks_its_answers() -> None:
    made = byte_level(TURNS, eos_token="<|im_end|>")
    made.chat_template = MARKED
    row = encoded(made, [SYSTEM, *FIRST, *SECOND])
    own = made.apply_chat_template(
        [SYSTEM, *FIRST, *SECOND], return_dict=True, return_assistant_tokens_mask=True
    )
    mask = [int(any(a <= at < b for a, b in row.spans)) for at in range(len(row.ids))]
    assert (row.ids, mask) == (own["input_ids"], own["assistant_masks"])


def test_the_loss_can_be_on_the_last_answer_on_everything_or_on_what_the_row_marks() -> None:
    made = model("ChatML")
    marked = [{**FIRST[0], "train": True}, *FIRST[1:], *SECOND]
    assert trained(made, encoded(made, marked, "last")) == ["return a\n\n  中<|im_end|>"]
    assert trained(made, encoded(made, marked, "row")) == ["What is it?"]
    row = encoded(made, marked, "everything")
    assert row.spans == ((0, len(row.ids)),)


def test_an_answer_that_the_row_excludes_is_not_trained() -> None:
    made = model("ChatML")
    messages = [FIRST[0], {**FIRST[1], "train": False}, *SECOND]
    assert trained(made, encoded(made, messages)) == ["return a\n\n  中<|im_end|>"]


@pytest.mark.parametrize("name", ["ChatML", "Phi-3", "Mistral", "Gemma", "Llama 3"])
def test_control_tokens_in_data_stay_text(name: str) -> None:
    made = model(name)
    plain = encoded(made, FIRST)
    control = next(t for t in RowEncoder(made).control.ids if t not in ("<unk>", "<s>", "<bos>"))
    messages = [{**FIRST[0], "content": f"What is {control}?"}, FIRST[1]]
    row = encoded(made, messages)
    ends = RowEncoder(made).ends
    assert [i for i in row.ids if i in ends] == [i for i in plain.ids if i in ends]
    assert f"What is {control}?" in made.decode(row.ids) and row.exact


def test_today_is_the_date_of_the_settings() -> None:
    made = model("Llama 3")
    chat = {"messages": FIRST, "date": "2001-02-03"}
    (row,) = RowEncoder(made).conversations([chat], "output")
    assert "Today Date: 03 Feb 2001" in made.decode(row.ids)


def test_a_template_of_the_user_is_used_instead_of_the_tokenizers() -> None:
    made = model("Llama 3")
    own = "{% for m in messages %}<|eot_id|>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    row = encoded(made, FIRST, template=own)
    text = "<|eot_id|>user: What is it? \n<|eot_id|>assistant: It is a + b.\n<|eot_id|>"
    assert made.decode(row.ids) == text
    assert row.ids[-1] == made.eos_token_id and row.is_closed


@pytest.mark.parametrize("name", ["ChatML", "Gemma", "Phi-3"])
def test_a_template_without_tools_is_an_error(name: str) -> None:
    with pytest.raises(PipelineError, match="rows have tools, and the chat template leaves out"):
        encoded(model(name), USED, tools=TOOLS)


def test_a_template_without_a_system_role_gets_the_system_text_with_the_first_question() -> None:
    made = model("Gemma")
    row = encoded(made, [SYSTEM, *FIRST])
    assert "user\nBe brief.\n\nWhat is it?<end_of_turn>" in made.decode(row.ids)
    assert trained(made, row) == ["It is a + b.<end_of_turn>"]


def test_a_conversation_that_the_template_refuses_carries_its_reason() -> None:
    row = encoded(model("Mistral"), [FIRST[0], *FIRST])
    assert row.problem == "roles must alternate user/assistant"


def test_a_tokenizer_without_a_template_is_an_error() -> None:
    made = byte_level(TURNS, eos_token="<|im_end|>")
    with pytest.raises(PipelineError, match="no chat template"):
        encoded(made, FIRST)


def test_a_broken_template_is_an_error_with_its_line() -> None:
    with pytest.raises(PipelineError, match="not valid Jinja: line 2"):
        encoded(model("ChatML"), FIRST, template="{% for m in messages %}\n{{ m")


def test_an_error_of_a_worker_process_arrives_with_its_remedy() -> None:
    error = pickle.loads(pickle.dumps(ChatTemplateError("no tools", "Use another.")))
    assert (type(error), error.problem, error.remedy) == (
        ChatTemplateError,
        "no tools",
        "Use another.",
    )
