"""A request to the gateway -> the request that an engine gets, in the format of the training."""

import json
from collections.abc import Sequence
from typing import Any

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


class RequestError(ValueError):
    """A request that can't be answered; its sender gets the text."""


def read_request(content: bytes) -> dict[str, Any]:
    """The body of a request.

    Raises:
        RequestError: It is not a JSON object.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RequestError('the request is not a JSON object; send {"prompt": ...}')
    return body


def with_training_format(
    path: str,
    body: dict[str, Any],
    stop: Sequence[str],
    infilling: Sequence[str] | None,
    model: str | None,
) -> dict[str, Any]:
    """The body of a request as the engine gets it.

    Args:
        path: Of the endpoint.
        body: As sent.
        stop: Texts that end an answer.
        infilling: Names of the tokens before prefix, suffix and middle; of two, before suffix and
            prefix; None without.
        model: The only model name that the engine accepts; None: any.

    Raises:
        RequestError: A field has a wrong type, or there is a suffix and the model can't fill in.
    """
    made = {"temperature": 0, **body}
    if model is not None:
        made["model"] = model
    own_stop = stop_texts(body)
    if path == CHAT:
        _check_messages(body.get("messages"))
    suffix = made.pop("suffix", None) if path == COMPLETIONS else None
    if suffix:
        made["prompt"] = _fill_prompt(body.get("prompt", ""), suffix, infilling)
    elif path == COMPLETIONS and body.get("prompt") is None:
        raise RequestError("the request has no prompt; send it as a text")
    elif stop and not own_stop:
        made["stop"] = list(stop)
    return made


def stop_texts(body: dict[str, Any]) -> list[str]:
    """The stop words of a request.

    Raises:
        RequestError: They are no texts.
    """
    stop = body.get("stop") or []
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RequestError("stop is neither a text nor a list of texts")
    return texts


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise RequestError('messages is no list of messages; send [{"role": "user", ...}]')
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
        raise RequestError("a message is not an object with a role")


def _fill_prompt(prompt: Any, suffix: Any, infilling: Sequence[str] | None) -> str:
    if infilling is None:
        raise RequestError(
            "the request has a suffix, and the model's tokenizer has no tokens for infilling; "
            "send the prompt without suffix"
        )
    texts = prompt if isinstance(prompt, list) and len(prompt) == 1 else [prompt]
    if not isinstance(texts[0], str) or not isinstance(suffix, str):
        raise RequestError("prompt and suffix have to be one text each to fill in between them")
    parts = (texts[0], suffix, "") if len(infilling) == 3 else (suffix, texts[0])
    return "".join(map("".join, zip(infilling, parts, strict=True)))
