"""A hub is asked again where the network failed, a few times, and never for anything else."""

import httpx
import pytest

from tasks.core.progress import sink
from tasks.core.system import retry
from tests.unit.core.conftest import Messages


@pytest.fixture
def waits(monkeypatch):
    found = []
    monkeypatch.setattr(retry.time, "sleep", found.append)
    return found


@pytest.fixture
def said():
    messages = Messages()
    with sink(messages):
        yield messages.lines


def failing(*errors):
    left = list(errors)

    def action():
        if left:
            raise left.pop(0)
        return "here"

    return action


def answer(code):
    request = httpx.Request("GET", "https://hub")
    response = httpx.Response(code, request=request)
    return httpx.HTTPStatusError(f"answer {code}", request=request, response=response)


def test_a_failed_connection_is_retried_and_logged(waits, said):
    action = failing(ConnectionError("no route"), httpx.ConnectTimeout("slow"))
    assert retry.retried(action, "a/b") == "here"
    assert waits == [5.0, 10.0]
    assert said == [
        "a/b: no route; trying again in 5 s (1 of 2)",
        "a/b: slow; trying again in 10 s (2 of 2)",
    ]


def test_the_third_failure_is_the_last(waits, said):
    with pytest.raises(ConnectionError, match="third"):
        retry.retried(failing(*map(ConnectionError, ("first", "second", "third"))), "a/b")


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_in_trouble_is_asked_again(waits, said, code):
    assert retry.retried(failing(answer(code)), "a/b") == "here"


@pytest.mark.parametrize(
    "error", [answer(401), answer(404), MemoryError("CUDA out of memory"), ValueError("wrong")]
)
def test_an_answer_or_a_lack_of_memory_is_not_tried_again(waits, said, error):
    with pytest.raises(type(error)):
        retry.retried(failing(error), "a/b")
    assert waits == []
    assert said == []


def test_a_hub_that_is_switched_off_is_not_asked_again(waits, said):
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    wrapped = LocalEntryNotFoundError("not here")
    wrapped.__cause__ = OfflineModeIsEnabled("off")
    with pytest.raises(LocalEntryNotFoundError):
        retry.retried(failing(wrapped), "a/b")
    assert waits == []
