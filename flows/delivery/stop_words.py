"""Cuts stop words off the answers of an engine that stops at them but returns them, too."""

import json
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Any

EVENT, DONE = "data: ", "data: [DONE]"


class StopFilter:
    """Cuts a text that arrives in pieces before its first stop word."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop, self._held, self._ended = stop, "", False

    def feed(self, piece: str, is_last: bool = False) -> str:
        """What is final; what may begin a stop word is held back until that is decided."""
        if self._ended:
            return ""
        self._held += piece
        found = [at for word in self._stop if (at := self._held.find(word)) >= 0]
        if found:
            self._ended = True
            return self._held[: min(found)]
        starts = (
            size
            for size in range(min(len(self._held), max(map(len, self._stop), default=1)), 0, -1)
            if any(word.startswith(self._held[-size:]) for word in self._stop)
        )
        keep = 0 if is_last else next(starts, 0)
        ready, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        return ready


def cut_answer(content: bytes, stop: Sequence[str]) -> bytes:
    """A whole answer in JSON, cut."""
    body = json.loads(content)
    for choice in body.get("choices", []):
        _apply(choice, StopFilter(stop), is_last=True)
    return json.dumps(body).encode()


async def cut_stream(pieces: AsyncIterable[str], stop: Sequence[str]) -> AsyncIterator[str]:
    """A stream of server-sent events, cut, and with the end that clients of OpenAI's API expect.

    Args:
        pieces: Lines of the stream.
        stop: Stop words.
    """
    filters: dict[int, StopFilter] = {}
    ended = False
    async for line in pieces:
        ended = ended or line == DONE
        if not line.startswith(EVENT + "{"):
            yield f"{line}\n"
            continue
        event = json.loads(line.removeprefix(EVENT))
        for choice in event.get("choices", []):
            own = filters.setdefault(choice.get("index", 0), StopFilter(stop))
            _apply(choice, own, is_last=choice.get("finish_reason") is not None)
        yield f"{EVENT}{json.dumps(event)}\n"
    if not ended:
        yield f"{DONE}\n\n"


def _apply(choice: dict[str, Any], stop: StopFilter, is_last: bool) -> None:
    """Cut the text of a choice of either endpoint, whole or in a stream."""
    place, name = choice, "text"
    for part in ("message", "delta"):
        if part in choice:
            place, name = choice[part], "content"
    text = stop.feed(place.get(name) or "", is_last)
    if text or name in place:
        place[name] = text
