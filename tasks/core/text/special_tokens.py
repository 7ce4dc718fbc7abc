"""Special tokens in prompts: placeholders for control tokens, chats and infilling, and their ids.

A placeholder is a name between two NUL bytes, which no row's text may hold, so data can't forge
one. The stage that writes prompts needs no tokenizer for it. The name is one of

- `FIM`: an infilling token;
- a JSON object: a conversation, which the chat template writes up to where the model answers, or
  {"end": true}, what the template writes after an answer;
- "repository:..." or "file:...": see `repository_format`;
- anything else: a control token of a prompt template. It becomes its id, or ordinary text where the
  tokenizer has no such token.

Everything outside of placeholders is ordinary text: "<|endoftext|>" in a row does not become a
control token.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tasks.core.errors import NotSupportedError
from tasks.core.text import repository_format

FIM = ("fim_prefix", "fim_suffix", "fim_middle")
PLACEHOLDER = re.compile("\0([^\0]+)\0")
# names in vocabularies, in the order of FIM: StarCoder (also StableCode, Granite), Qwen (also
# CodeGemma), SantaCoder, DeepSeek, Code Llama; Codestral has none before the middle, and gets the
# suffix first: [SUFFIX]...[PREFIX]...
FIM_TOKENS: tuple[tuple[str, ...], ...] = (
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<PRE>", "<SUF>", "<MID>"),
    ("[PREFIX]", "[SUFFIX]"),
)
# what can be a control token in a prompt template: <|im_start|>, </s>, [INST] ...
_CANDIDATE = re.compile(r"<[^<>\s\0]{1,60}>|\[[^\[\]\s\0]{1,60}\]")
Part = str | int  # text, or the id of a token
Pieces = Sequence[tuple[Part, bool]]  # parts of a row, and whether each is trained


class MissingTokenError(NotSupportedError):
    """The tokenizer has no tokens for a placeholder."""


def placeholder(name: str) -> str:
    """The placeholder of a name."""
    return f"\0{name}\0"


def with_control_tokens(template: str) -> str:
    """A part of a prompt template, with placeholders for what may be control tokens in it."""
    return _CANDIDATE.sub(lambda found: placeholder(found[0]), template)


def chat_placeholder(conversation: dict[str, Any]) -> str:
    """The placeholder of a conversation or of an end."""
    return placeholder(json.dumps(conversation, sort_keys=True, ensure_ascii=False))


def literal(text: str) -> str:
    """A text with the names of control tokens instead of their placeholders."""
    return PLACEHOLDER.sub(lambda found: found[1], text)


def readable(text: str) -> str:
    """A text with its placeholders written as [user], [fim_prefix] ..."""
    return PLACEHOLDER.sub(lambda found: _readable(found[1]), text)


def _readable(name: str) -> str:
    if name in FIM:
        return f"[{name}]"
    if not name.startswith("{"):
        return repository_format.readable(name)
    chat = json.loads(name)
    if "messages" not in chat:
        return "[end]"
    tools = [f"[tools]{json.dumps(chat['tools'])}"] if chat.get("tools") else []
    turns = [f"[{m['role']}]{_content(m)}" for m in chat["messages"]]
    return "".join([*tools, *turns, "[assistant]"])


def _content(message: dict[str, Any]) -> str:
    calls = message.get("tool_calls")
    return str(message.get("content") or "") + (json.dumps(calls) if calls else "")


class ControlTokens:
    """The control tokens of one tokenizer: names in a text -> ids."""

    def __init__(self, tokenizer: Any) -> None:
        self.ids: dict[str, int] = {
            token.content: number
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }
        longest_first = sorted(self.ids, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._tokenizer = tokenizer
        self._infilling: dict[str, int] | None = None
        self._vocabulary: dict[str, int] | None = None

    def split(self, text: str) -> Iterator[tuple[Part, int, int]]:
        """(part, start, end): runs of text, and ids of the control tokens named between them."""
        at = 0
        for found in self.pattern.finditer(text):
            if found.start() > at:
                yield text[at : found.start()], at, found.start()
            yield self.ids[found[0]], found.start(), found.end()
            at = found.end()
        if at < len(text):
            yield text[at:], at, len(text)

    @property
    def vocabulary(self) -> dict[str, int]:
        """All tokens and their ids."""
        if self._vocabulary is None:
            self._vocabulary = dict(self._tokenizer.get_vocab())
        return self._vocabulary

    def infilling(self) -> dict[str, int]:
        """The ids of the infilling tokens by their names in `FIM`, in the order of a prompt.

        Raises:
            MissingTokenError: The tokenizer has none.
        """
        if self._infilling is None:
            vocabulary = self.vocabulary
            known = (words for words in FIM_TOKENS if all(word in vocabulary for word in words))
            words = next(known, None)
            if words is None:
                raise MissingTokenError(
                    f"the base model's tokenizer has no tokens for infilling, such as "
                    f"{', '.join(FIM_TOKENS[0])} ({len(vocabulary):,} tokens searched)",
                    "Set prompt.fim_rate to 0 and leave fill out of `rows` of sources, or use "
                    "a base model that was trained to fill in.",
                )
            found = {name: vocabulary[word] for name, word in zip(FIM, words, strict=False)}
            self._infilling = found if len(found) == len(FIM) else dict(reversed(found.items()))
        return self._infilling

    def filled(self, parts: list[str]) -> list[str]:
        """A prompt for infilling, split into texts and names of placeholders by turns, in the order
        of the tokenizer: without a token before the middle, the suffix comes first."""
        names = parts[1::2]
        if FIM[2] not in names or FIM[2] in self.infilling():
            return parts
        first, second, third = (2 * names.index(name) + 1 for name in FIM)
        # the text that the model continues is in one of two places: see `fill_prompt`
        prefix, rest = parts[first + 1 : second], parts[third + 1 :]
        ordered = [FIM[1], *parts[second + 1 : third], FIM[0], *prefix[:-1], prefix[-1] + rest[0]]
        return [*parts[:first], *ordered, *rest[1:]]


def joined(parts: Iterable[Part]) -> list[Part]:
    """Parts without empty text, and with runs of text as one: template and row are tokenized
    together."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif part != "":
            found.append(part)
    return found
