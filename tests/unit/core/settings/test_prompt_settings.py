from pathlib import Path

import pytest

from tasks.core.errors import PipelineError
from tasks.core.settings.config import check
from tasks.core.text.prompt_templates import PromptTemplate

JINJA = "{% for m in messages %}{{ m.content }}{% endfor %}"


def test_a_chat_template_in_a_file_is_read_so_that_its_text_is_in_the_key(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(JINJA)
    template = check({"prompt": {"template": str(path)}}).prompt.template
    assert template == JINJA and PromptTemplate(template).is_chat


def test_a_missing_chat_template_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"own\.jinja can't be read: No such file"):
        check({"prompt": {"template": str(tmp_path / "own.jinja")}})


def test_a_file_that_writes_no_messages_is_no_chat_template(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("Hello {{ name }}")
    with pytest.raises(PipelineError, match="is not a chat template"):
        check({"prompt": {"template": str(path)}})


@pytest.mark.parametrize("day", ["2024-13-01", "today"])
def test_a_date_has_to_be_one(day: str) -> None:
    with pytest.raises(PipelineError, match=r"prompt\.date"):
        check({"prompt": {"date": day}})
