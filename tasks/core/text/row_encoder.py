"""Rows -> token ids and the spans of them that are trained, with one tokenizer.

A row is a prompt and its completion, segments, or a conversation. Training, evaluation and
`finetune try` share this module, so that a model is prompted as it was trained. Every row whose
last answer is trained ends in a trained end token: EOS, or the control token by which the chat
template ends a turn. Tokens that the tokenizer puts before a text (BOS) are kept, but not before a
chat, whose template writes its own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.text import repository_format
from tasks.core.text.chat_environment import ConversationError
from tasks.core.text.chat_template import ChatTemplate
from tasks.core.text.conversation import is_closed, trained_messages, trained_segments
from tasks.core.text.offset_encoder import Tokens
from tasks.core.text.special_tokens import (
    FIM,
    PLACEHOLDER,
    ControlTokens,
    Part,
    Pieces,
    joined,
)
from tasks.core.text.text_encoder import TextEncoder

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row.

    Attributes:
        ids: All of them.
        spans: Start and end of each run of trained tokens.
        exact: Decoding the ids gives back the text.
        text_bytes: Bytes of the trained text, in UTF-8.
        text_tokens: Tokens of the trained text, without control tokens.
        is_closed: The row has to end in a trained end token.
        problem: Why the chat template refuses the row; "" if it doesn't.
    """

    ids: list[int]
    spans: Spans
    exact: bool = True
    text_bytes: int = 0
    text_tokens: int = 0
    is_closed: bool = True
    problem: str = ""

    @property
    def prompt_tokens(self) -> int:
        """Tokens before the first that is trained."""
        return self.spans[0][0] if self.spans else len(self.ids)

    def with_all_trained(self) -> "Encoded":
        """The same row, trained from its first token to its last."""
        return replace(self, spans=((0, len(self.ids)),))


class RowEncoder:
    """A fast tokenizer of transformers, set up for texts of training.

    Attributes:
        eos: Id of the end-of-text token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.eos: int = tokenizer.eos_token_id
        self._texts = TextEncoder(tokenizer)
        self.control = ControlTokens(tokenizer)
        self._chat = ChatTemplate(tokenizer, self.control)

    @property
    def ends(self) -> frozenset[int]:
        """Ids of the tokens that can end a row."""
        return frozenset({self.eos, *self.control.ids.values()})

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with placeholders, without what the tokenizer puts before it.

        Raises:
            NotSupportedError: The tokenizer has no tokens for a placeholder, or no chat template
                for a conversation.
        """
        return [tokens.ids for tokens in self._texts.encode([self._plain(text) for text in texts])]

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts; raises as `encode`."""
        rows = [self._plain(text) for text in texts]
        before = [self._before(text, row) for text, row in zip(texts, rows, strict=True)]
        tokens = self._texts.encode(rows)
        return [[*start, *found.ids] for start, found in zip(before, tokens, strict=True)]

    def pairs(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Encoded]:
        """Rows of a prompt and a completion, which is trained; raises as `encode`."""
        before, after = ([self._plain(text) for text in texts] for texts in (prompts, completions))
        found = []
        if self._texts.is_byte_level:  # then the ids of two texts are those of both as one
            halves = zip(self._texts.encode(before), self._texts.encode(after), strict=True)
            for (given, answer), prompt, first, own, completion in zip(
                halves, prompts, before, after, completions, strict=True
            ):
                ids = [*self._before(prompt, first), *given.ids]
                start = len(ids)
                ids += answer.ids if _is_ended(completion, own) else [*answer.ids, self.eos]
                exact = given.exact and answer.exact
                found.append(Encoded(ids, ((start, len(ids)),), exact, *_size(own, answer.ids)))
            return found
        rows = [
            [*given, *((part, True) for part, _ in own)]
            for given, own in zip(before, after, strict=True)
        ]
        for prompt, completion, own, tokens in zip(
            prompts, completions, rows, self._texts.offsets.encode(rows), strict=True
        ):
            add_eos = not _is_ended(completion, own)
            found.append(self._encoded(own, tokens, self._before(prompt, own), add_eos))
        return found

    def conversations(self, chats: Sequence[Mapping[str, Any]], loss_on: str) -> list[Encoded]:
        """Rows of conversations or segments, with the loss on "output" (all answers), "last" (the
        last answer), "row" (the masks of the row) or "everything"; raises as `encode`."""
        rows: list[Pieces] = []
        problems: dict[int, str] = {}
        for number, chat in enumerate(chats):
            try:
                rows.append(self._conversation(chat, loss_on))
            except ConversationError as error:
                problems[number] = str(error)
                rows.append([])
        found = []
        for number, (chat, own, tokens) in enumerate(
            zip(chats, rows, self._texts.encode(rows), strict=True)
        ):
            if number in problems:
                found.append(Encoded([self.eos], (), problem=problems[number]))
                continue
            is_text = "segments" in chat
            closed = is_closed(chat, loss_on)
            text = chat["segments"][0]["text"] if is_text and chat["segments"] else ""
            prefix = self._before(text, own) if is_text else []
            add_eos = is_text or (closed and not _ends_turn(own))
            found.append(self._encoded(own, tokens, prefix, add_eos, closed))
        return found

    def _conversation(self, chat: Mapping[str, Any], loss_on: str) -> Pieces:
        if "segments" in chat:
            trained = trained_segments(chat["segments"], loss_on)
            return [
                (part, index in trained)
                for index, segment in enumerate(chat["segments"])
                for part, _ in self._plain(segment["text"])
            ]
        pieces = self._chat.whole(chat, trained_messages(chat["messages"], loss_on))
        return [(part, True) for part, _ in pieces] if loss_on == "everything" else pieces

    def _encoded(
        self, pieces: Pieces, tokens: Tokens, prefix: list[int], add_eos: bool, closed: bool = True
    ) -> Encoded:
        ids = [*prefix, *tokens.ids, *([self.eos] if add_eos else [])]
        trained = np.zeros(len(ids), dtype=bool)
        trained[len(prefix) : len(prefix) + len(tokens.ids)] = tokens.trained
        on = [piece for piece in pieces if piece[1]]
        trained[len(ids) - 1 :] |= add_eos and closed
        size = _size(on, np.flatnonzero(tokens.trained).tolist())
        return Encoded(ids, _runs(trained), tokens.exact, *size, closed)

    def _before(self, text: str, pieces: Pieces) -> list[int]:
        """What the tokenizer puts before a text."""
        first = pieces[0][0] if pieces else ""
        if text.startswith("\0{") or (self._texts.prefix and first == self._texts.prefix[0]):
            return []
        return self._texts.prefix

    def _plain(self, text: str) -> Pieces:
        """A text with placeholders as parts, none of them trained."""
        if "\0" not in text:
            return [(text, False)] if text else []
        parts: list[Part] = []
        for number, part in enumerate(self.control.filled(PLACEHOLDER.split(text))):
            parts += self._resolved(part) if number % 2 else [part]
        return [(part, False) for part in joined(parts)]

    def _resolved(self, name: str) -> list[Part]:
        """What a placeholder stands for."""
        if name in FIM:
            return [self.control.infilling()[name]]
        if (parts := repository_format.resolve(name, self.control.vocabulary)) is not None:
            return parts
        if not name.startswith("{"):
            return [self.control.ids.get(name, name)]
        chat = json.loads(name)
        if "messages" in chat:
            return [part for part, _ in self._chat.prompt(chat)]
        end = [part for part, _, _ in self.control.split(self._chat.end(chat))]
        # as much as is trained: the control token that ends the turn, and EOS after it
        at = [i for i, part in enumerate(end) if isinstance(part, int)]
        return end[: end.index(self.eos) + 1 if self.eos in end else at[0] + 1 if at else len(end)]


def _size(pieces: Pieces, ids: Sequence[int]) -> tuple[int, int]:
    """Bytes of the text of parts, and the tokens of it."""
    texts = [part for part, _ in pieces if isinstance(part, str)]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return size, len(ids) - (len(pieces) - len(texts))


def _is_ended(completion: str, pieces: Pieces) -> bool:
    """Whether a completion ends in a control token of its template."""
    return completion.endswith("\0") and bool(pieces) and isinstance(pieces[-1][0], int)


def _ends_turn(pieces: Pieces) -> bool:
    """Whether the last trained part of a row is a control token."""
    last = next((part for part, trained in reversed(pieces) if trained), "")
    return isinstance(last, int)


def _runs(trained: NDArray[np.bool_]) -> Spans:
    """Start and end of each run of trained tokens."""
    edges = np.flatnonzero(np.diff(trained, prepend=False, append=False)).tolist()
    return tuple(zip(edges[::2], edges[1::2], strict=True))
