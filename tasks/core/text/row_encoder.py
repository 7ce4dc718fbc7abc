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

from tasks.core.text.bpe_cache import BpeCache
from tasks.core.text.chat_template import ChatTemplate, ConversationError
from tasks.core.text.conversation import is_closed, trained_messages, trained_segments
from tasks.core.text.offset_encoder import OffsetEncoder, Tokens
from tasks.core.text.special_tokens import (
    FIM,
    PLACEHOLDER,
    ControlTokens,
    Part,
    Pieces,
    joined,
)

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
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        self.control = ControlTokens(tokenizer)
        self._chat = ChatTemplate(tokenizer, self.control)
        self._cache = BpeCache.of(self._backend)
        self._is_byte_level = _is_byte_level(self._backend)
        self._prefix = _prefix(self._backend)
        self._by_offsets: OffsetEncoder | None = None

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
        return [tokens.ids for tokens in self._tokens([self._plain(text) for text in texts])]

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts; raises as `encode`."""
        rows = [self._plain(text) for text in texts]
        before = [self._before(text, row) for text, row in zip(texts, rows, strict=True)]
        tokens = self._tokens(rows)
        return [[*start, *found.ids] for start, found in zip(before, tokens, strict=True)]

    def pairs(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Encoded]:
        """Rows of a prompt and a completion, which is trained; raises as `encode`."""
        before, after = ([self._plain(text) for text in texts] for texts in (prompts, completions))
        rows = [
            [*given, *((part, True) for part, _ in own)]
            for given, own in zip(before, after, strict=True)
        ]
        if self._is_byte_level:  # then the ids of two texts are those of both as one
            halves = (self._tokens(before), self._tokens(after))
            encoded = [_with(one, other) for one, other in zip(*halves, strict=True)]
        else:
            encoded = self._offsets.encode(rows)
        found = []
        for prompt, completion, own, tokens in zip(
            prompts, completions, rows, encoded, strict=True
        ):
            is_ended = completion.endswith("\0") and _ends_turn(own)
            found.append(self._encoded(own, tokens, self._before(prompt, own), not is_ended))
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
            zip(chats, rows, self._tokens(rows), strict=True)
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
        text = [part for part, is_trained in pieces if is_trained and isinstance(part, str)]
        controls = sum(1 for part, on in pieces if on and not isinstance(part, str))
        trained[len(ids) - 1 :] |= add_eos and closed
        return Encoded(
            ids,
            _runs(trained),
            tokens.exact,
            sum(len(part.encode("utf-8", "replace")) for part in text),
            int(tokens.trained.sum()) - controls,
            closed,
        )

    def _before(self, text: str, pieces: Pieces) -> list[int]:
        """What the tokenizer puts before a text."""
        first = pieces[0][0] if pieces else ""
        if text.startswith("\0{") or (self._prefix and first == self._prefix[0]):
            return []
        return self._prefix

    def _plain(self, text: str) -> Pieces:
        """A text with placeholders as parts, none of them trained."""
        if "\0" not in text:
            return [(text, False)] if text else []
        parts: list[Part] = []
        for number, part in enumerate(PLACEHOLDER.split(text)):
            parts += self._resolved(part) if number % 2 else [part]
        return [(part, False) for part in joined(parts)]

    def _resolved(self, name: str) -> list[Part]:
        """What a placeholder stands for."""
        if name in FIM:
            return [self.control.infilling(name)]
        if not name.startswith("{"):
            return [self.control.ids.get(name, name)]
        chat = json.loads(name)
        if "messages" in chat:
            return [part for part, _ in self._chat.prompt(chat)]
        end = [part for part, _, _ in self.control.split(self._chat.end(chat))]
        # as much as is trained: the control token that ends the turn, and EOS after it
        at = [i for i, part in enumerate(end) if isinstance(part, int)]
        return end[: end.index(self.eos) + 1 if self.eos in end else at[0] + 1 if at else len(end)]

    def _tokens(self, rows: Sequence[Pieces]) -> list[Tokens]:
        """Token ids of rows of parts; the cache encodes those that are one text."""
        is_text = [self._is_byte_level and _is_text(row) for row in rows]
        texts = [
            str(row[0][0]) if row else "" for row, yes in zip(rows, is_text, strict=True) if yes
        ]
        others = [row for row, yes in zip(rows, is_text, strict=True) if not yes]
        by_cache = iter(self._of_texts(texts))
        by_offsets = iter(self._offsets.encode(others) if others else [])
        return [next(by_cache if yes else by_offsets) for yes in is_text]

    def _of_texts(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of texts without control tokens."""
        cache = self._cache
        cached = [text.isascii() and cache is not None for text in texts]
        rest = [text for text, yes in zip(texts, cached, strict=True) if not yes]
        by_tokenizer = iter(self._backend.encode_batch_fast(rest, add_special_tokens=False))
        ids = [
            cache.encode(text) if yes and cache else next(by_tokenizer).ids
            for text, yes in zip(texts, cached, strict=True)
        ]
        # what the BPE cache has checked pre-token by pre-token needs no decoding
        doubtful = [i for i, yes in enumerate(cached) if not (yes and cache and cache.exact)]
        decoded = self._backend.decode_batch([ids[i] for i in doubtful], skip_special_tokens=False)
        wrong = {
            i
            for i, text in zip(doubtful, decoded, strict=True)
            if text != texts[i] and text != self._normalized(texts[i])
        }
        return [Tokens(own, np.zeros(len(own), bool), i not in wrong) for i, own in enumerate(ids)]

    def _normalized(self, text: str) -> str:
        """A text in the tokenizer's Unicode normal form (NFC for models of the GPT-NeoX family),
        which is no loss."""
        normalizer = self._backend.normalizer
        return str(normalizer.normalize_str(text)) if normalizer else text

    @property
    def _offsets(self) -> OffsetEncoder:
        if self._by_offsets is None:
            self._by_offsets = OffsetEncoder(self._tokenizer)
        return self._by_offsets


def _with(prompt: Tokens, completion: Tokens) -> Tokens:
    """The tokens of a prompt and, trained, those of its completion."""
    trained = np.repeat([False, True], [len(prompt.ids), len(completion.ids)])
    return Tokens(prompt.ids + completion.ids, trained, prompt.exact and completion.exact)


def _is_text(pieces: Pieces) -> bool:
    return not pieces or (len(pieces) == 1 and isinstance(pieces[0][0], str))


def _ends_turn(pieces: Pieces) -> bool:
    """Whether the last trained part of a row is a control token."""
    last = next((part for part, trained in reversed(pieces) if trained), "")
    return isinstance(last, int)


def _runs(trained: NDArray[np.bool_]) -> Spans:
    """Start and end of each run of trained tokens."""
    edges = np.flatnonzero(np.diff(trained, prepend=False, append=False)).tolist()
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def _is_byte_level(backend: Any) -> bool:
    """Whether a text's ids don't depend on what text stands before it, nor on where it starts."""
    pre_tokenizer = backend.pre_tokenizer
    spec = json.loads(pre_tokenizer.__getstate__()) if pre_tokenizer else {}
    steps = spec.get("pretokenizers") or [spec]
    return any(s.get("type") == "ByteLevel" and not s["add_prefix_space"] for s in steps)


def _prefix(backend: Any) -> list[int]:
    """Ids that the tokenizer itself puts before a text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    whole: list[int] = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start]
    return []
