"""Special tokens in prompts: placeholders for chat roles and infilling, and their token ids.

A placeholder is a name between two NUL bytes, which no row's text may hold, so data can't forge
one. The stage that writes prompts needs no tokenizer for it, and the stage that tokenizes needs no
prompt template: `SpecialTokenEncoder` replaces placeholders by what the tokenizer's chat template
writes there and by its infilling tokens. Everything else is ordinary text: "<|endoftext|>" in a row
does not become a control token.
"""

import re
from collections.abc import Sequence
from typing import Any

from tasks.core.errors import NotSupportedError
from tasks.core.text.bpe_cache import BpeCache

CHAT = ("user", "assistant", "end")
FIM = ("fim_prefix", "fim_suffix", "fim_middle")
PLACEHOLDER = re.compile(f"\0({'|'.join((*CHAT, *FIM))})\0")
# names in vocabularies, in the order of FIM: StarCoder, Qwen, SantaCoder, DeepSeek, Code Llama
FIM_TOKENS = (
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<PRE>", "<SUF>", "<MID>"),
)
Part = str | int  # text, or the id of a token


class MissingTokenError(NotSupportedError):
    """The tokenizer has no tokens for a placeholder."""


def placeholder(name: str) -> str:
    """The placeholder of a name in `CHAT` or `FIM`."""
    return f"\0{name}\0"


def readable(text: str) -> str:
    """A text with its placeholders written as [user], [fim_prefix] ..."""
    return PLACEHOLDER.sub(lambda found: f"[{found[1]}]", text)


class SpecialTokenEncoder:
    """Encodes texts with placeholders with one tokenizer, which is set up for that."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        self._cache = BpeCache.of(self._backend)
        self._names = {
            token.content: number
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }
        longest_first = sorted(self._names, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._by_name: dict[str, list[Part]] = {}
        self._prefix = _prefix(self._backend)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without `prefix_of`.

        Raises:
            MissingTokenError: The tokenizer has no tokens for a placeholder.
        """
        if not any("\0" in text for text in texts):
            return self._ids(texts)
        rows = [self._parts(text) for text in texts]
        runs = iter(self._ids([p for row in rows for p in row if isinstance(p, str)]))
        return [
            [n for p in row for n in ((p,) if isinstance(p, int) else next(runs))] for row in rows
        ]

    def prefix_of(self, text: str) -> list[int]:
        """Ids that the tokenizer itself puts before a text (BOS); none before a chat, whose
        template writes its own."""
        return [] if text.startswith(placeholder("user")) else self._prefix

    def _parts(self, text: str) -> list[Part]:
        """A text as runs of ordinary text and ids of special tokens."""
        found: list[Part] = []
        for number, part in enumerate(PLACEHOLDER.split(text)):
            for piece in self._tokens_of(part) if number % 2 else [part]:
                if isinstance(piece, str) and found and isinstance(found[-1], str):
                    found[-1] += piece  # text of template and row is tokenized together
                elif piece != "":
                    found.append(piece)
        return found

    def rendered(self, text: str) -> str:
        """A text with the tokenizer's special tokens instead of placeholders."""
        if "\0" not in text:
            return text
        token = self._tokenizer.convert_ids_to_tokens
        return "".join(p if isinstance(p, str) else token(p) for p in self._parts(text))

    def _tokens_of(self, name: str) -> list[Part]:
        """What the tokenizer writes for a placeholder."""
        if name not in self._by_name:
            self._by_name.update(self._infilling() if name in FIM else self._chat())
        return self._by_name[name]

    def _infilling(self) -> dict[str, list[Part]]:
        vocabulary = self._tokenizer.get_vocab()
        for words in FIM_TOKENS:
            if all(word in vocabulary for word in words):
                return {name: [vocabulary[w]] for name, w in zip(FIM, words, strict=True)}
        raise MissingTokenError(
            f"the base model's tokenizer has no tokens for infilling, such as "
            f"{', '.join(FIM_TOKENS[0])} ({len(vocabulary):,} tokens looked at)",
            "Set prompt.fim_rate to 0 and leave fill out of the `rows` of ingest.sources, or use a "
            "base model that was trained to fill in.",
        )

    def _chat(self) -> dict[str, list[Part]]:
        """What the chat template writes before a request, before the answer and after it.

        Found by rendering two texts that no template holds.
        """
        if not self._tokenizer.chat_template:
            raise MissingTokenError(
                "prompt.template is chat, and the base model's tokenizer has no chat template",
                "Set prompt.template to instruction, or use a base model made for chat.",
            )
        asked, answered = "REQUEST\u2063", "ANSWER\u2063"
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        apply = self._tokenizer.apply_chat_template
        given = apply(turns[:1], tokenize=False, add_generation_prompt=True)
        whole = apply(turns, tokenize=False)
        if given.count(asked) != 1 or whole.count(answered) != 1:
            raise MissingTokenError(
                "the base model's chat template doesn't write a request and its answer once each",
                "Set prompt.template to instruction or to a text of your own.",
            )
        before, _, between = given.partition(asked)
        end = self._split(whole.partition(answered)[2])
        eos = self._tokenizer.eos_token_id
        if eos in end:
            end = end[: end.index(eos)]  # `encode` adds EOS to every row
        return {"user": self._split(before), "assistant": self._split(between), "end": end}

    def _split(self, text: str) -> list[Part]:
        """A part of a chat template as text and ids of control tokens."""
        found: list[Part] = []
        at = 0
        for token in self._control.finditer(text):
            found += [text[at : token.start()], self._names[token[0]]]
            at = token.end()
        return [piece for piece in (*found, text[at:]) if piece != ""]

    def is_exact(self, text: str) -> bool:
        """Whether the ids of a text are known to decode to it, without decoding them."""
        is_plain = text.isascii() and "\0" not in text
        return is_plain and self._cache is not None and self._cache.exact

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if self._cache is None:
            return self._by_tokenizer(texts)
        rest = iter(self._by_tokenizer([text for text in texts if not text.isascii()]))
        encode = self._cache.encode
        return [encode(text) if text.isascii() else next(rest) for text in texts]

    def _by_tokenizer(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def _prefix(backend: Any) -> list[int]:
    """Ids that the tokenizer itself puts before a text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    whole: list[int] = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start]
    return []
