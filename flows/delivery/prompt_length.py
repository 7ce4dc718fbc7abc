"""Limits requests to the model's window, for an engine that generates nonsense beyond it."""

from pathlib import Path
from typing import Any

import jinja2

from flows.delivery.request_format import CHAT, RequestError
from tasks.core.models.pretrained import max_length, read_config, read_tokenizer


class PromptLength:
    """Counts the tokens of requests.

    Args:
        folder: Of the model.
        context: Longest prompt with its answer, in tokens; None: what the model allows.
    """

    def __init__(self, folder: Path, context: int | None) -> None:
        longest = max_length(read_config(folder))
        self._window = min(context or longest, longest)
        self._tokenizer = read_tokenizer(folder)

    def limited(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The request, with an answer that the window has room for.

        Raises:
            RequestError: The prompt alone fills the window, or the template can't write it.
        """
        tokens = self._tokens(path, body)
        left = self._window - tokens
        if left < 1:
            raise RequestError(
                f"the request has {tokens:,} tokens, and the window of the model {self._window:,}, "
                "with the answer; send a shorter one"
            )
        name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
        wanted = body.get(name)
        if wanted is not None and not isinstance(wanted, int):
            raise RequestError(f"{name} is not a number of tokens")
        return {**body, name: left if wanted is None or wanted < 0 else min(wanted, left)}

    def _tokens(self, path: str, body: dict[str, Any]) -> int:
        if path != CHAT:
            texts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
            return max(
                len(self._tokenizer(t).input_ids) if isinstance(t, str) else 1 for t in texts
            )
        messages = [{**m, "content": _text(m.get("content"))} for m in body["messages"]]
        try:
            ids = self._tokenizer.apply_chat_template(
                messages, tools=body.get("tools"), add_generation_prompt=True, return_dict=False
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise RequestError(
                f"the model's chat template can't write the messages: {error}"
            ) from error
        return len(ids)


def _text(content: Any) -> Any:
    """The text of a content that is sent in parts."""
    if not isinstance(content, list):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
