"""Marks: places in a prompt's text where the tokenizer's own words stand (chat roles, infilling).

A mark is a name between two NUL bytes, which no row's text may hold, so data can't forge one. The
stage that writes texts needs no tokenizer for them, and the one that tokenizes needs no template:
`Marks` turns a text into token ids by the tokenizer's chat template and infilling tokens. All else
in a text is letters: "<|endoftext|>" in a row is no control token.
"""

import re
from collections.abc import Sequence
from typing import Any

from tasks.core.errors import PipelineError
from tasks.core.text.bpe_cache import Pieces

CHAT = ("user", "assistant", "end")
FIM = ("fim_prefix", "fim_suffix", "fim_middle")
MARK = re.compile(f"\0({'|'.join((*CHAT, *FIM))})\0")
# what tokenizers call them, in the order of FIM
FIM_TOKENS = (
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<PRE>", "<SUF>", "<MID>"),
)
Piece = str | int


def mark(name: str) -> str:
    """The mark of a name in `CHAT` or `FIM`."""
    return f"\0{name}\0"


def readable(text: str) -> str:
    """A text with its marks shown as [user], [fim_prefix] ..."""
    return MARK.sub(lambda found: f"[{found[1]}]", text)


class Marks:
    """Texts with marks -> token ids, by one tokenizer.

    Attributes:
        prefix: Ids that the tokenizer's own convention puts before a text (BOS); not before a chat,
            whose template says all.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        self._pieces = Pieces.of(self._backend)
        self._names = {
            token.content: number
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }
        longest_first = sorted(self._names, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._frames: dict[str, list[Piece]] = {}
        self.prefix: list[int] = _prefix(self._backend)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without `prefix`.

        Raises:
            PipelineError: The tokenizer has no words for a mark.
        """
        if not any("\0" in text for text in texts):
            return self._ids(texts)
        rows = [self.pieces(text) for text in texts]
        runs = iter(self._ids([p for row in rows for p in row if isinstance(p, str)]))
        return [
            [n for p in row for n in ((p,) if isinstance(p, int) else next(runs))] for row in rows
        ]

    def starts_itself(self, text: str) -> bool:
        """Whether a text brings its own beginning, so that `prefix` is not put before it."""
        return text.startswith(mark("user"))

    def pieces(self, text: str) -> list[Piece]:
        """A text as runs of letters and control tokens' ids."""
        found: list[Piece] = []
        for number, part in enumerate(MARK.split(text)):
            for piece in self._frame(part) if number % 2 else [part]:
                if isinstance(piece, str) and found and isinstance(found[-1], str):
                    found[-1] += piece  # letters of template and row are cut into tokens together
                elif piece != "":
                    found.append(piece)
        return found

    def rendered(self, text: str) -> str:
        """A text with the tokenizer's words in the place of its marks."""
        if "\0" not in text:
            return text
        word = self._tokenizer.convert_ids_to_tokens
        return "".join(p if isinstance(p, str) else word(p) for p in self.pieces(text))

    def _frame(self, name: str) -> list[Piece]:
        if name not in self._frames:
            self._frames.update(self._infilling() if name in FIM else self._chat())
        return self._frames[name]

    def _infilling(self) -> dict[str, list[Piece]]:
        vocabulary = self._tokenizer.get_vocab()
        for words in FIM_TOKENS:
            if all(word in vocabulary for word in words):
                return {name: [vocabulary[w]] for name, w in zip(FIM, words, strict=True)}
        raise PipelineError(
            f"the base model's tokenizer has no tokens for infilling, such as "
            f"{', '.join(FIM_TOKENS[0])} ({len(vocabulary):,} tokens looked at)",
            "Set prompt.fim_rate to 0, or use a base model that was trained to fill in.",
        )

    def _chat(self) -> dict[str, list[Piece]]:
        """What the chat template writes before a request, before the answer and behind it."""
        if not self._tokenizer.chat_template:
            raise PipelineError(
                "prompt.template is chat, and the base model's tokenizer has no chat template",
                "Set prompt.template to instruction, or use a base model made for chat.",
            )
        asked, answered = "REQUEST\u2063", "ANSWER\u2063"  # in no template
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        apply = self._tokenizer.apply_chat_template
        given = apply(turns[:1], tokenize=False, add_generation_prompt=True)
        whole = apply(turns, tokenize=False)
        if given.count(asked) != 1 or whole.count(answered) != 1:
            raise PipelineError(
                "the base model's chat template doesn't write a request and its answer once each",
                "Set prompt.template to instruction or to a text of your own.",
            )
        before, _, between = given.partition(asked)
        end = self._words(whole.partition(answered)[2])
        eos = self._tokenizer.eos_token_id
        if eos in end:
            end = end[: end.index(eos)]  # it ends every row anyway
        return {"user": self._words(before), "assistant": self._words(between), "end": end}

    def _words(self, text: str) -> list[Piece]:
        """A piece of a chat template, its control tokens as ids."""
        found: list[Piece] = []
        at = 0
        for token in self._control.finditer(text):
            found += [text[at : token.start()], self._names[token[0]]]
            at = token.end()
        return [piece for piece in (*found, text[at:]) if piece != ""]

    def is_exact(self, text: str) -> bool:
        """Whether it is known, without decoding them, that the ids of a text give it back."""
        is_plain = text.isascii() and "\0" not in text
        return is_plain and self._pieces is not None and self._pieces.exact

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if self._pieces is None:
            return self._by_tokenizer(texts)
        rest = iter(self._by_tokenizer([text for text in texts if not text.isascii()]))
        encode = self._pieces.encode
        return [encode(text) if text.isascii() else next(rest) for text in texts]

    def _by_tokenizer(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def _prefix(backend: Any) -> list[int]:
    """Ids that the tokenizer's own convention puts before a text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    dressed: list[int] = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(dressed) - len(bare) + 1):
        if dressed[start : start + len(bare)] == bare:
            return dressed[:start]
    return []
