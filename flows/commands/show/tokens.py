"""`finetune show tokenize --row`: the tokens of a sample, and which of them are trained.

Control tokens are written in ⟦brackets⟧, so that they can be told from their names in the data,
which are ordinary text.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tasks.core.system.escape_text import escape_controls

DIM, GREEN, PLAIN = "\x1b[2m", "\x1b[32m", "\x1b[0m"


class TokenView:
    """Token ids as text.

    Args:
        tokenizer: A `tokenizers.Tokenizer`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._control = {number for number, token in added.items() if token.special}

    @classmethod
    def of(cls, folder: Path) -> "TokenView":
        """The view for the tokenizer in a folder."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")))

    def text(self, ids: Sequence[int], start: int, end: int) -> str:
        """The text of some tokens of a row, control tokens in brackets."""
        found = []
        at = start
        for is_control, run in groupby(ids[start:end], self._control.__contains__):
            own = list(run)
            if is_control:
                found += [f"⟦{self.token(number)}⟧" for number in own]
            else:
                found.append(escape_controls(self._between(ids, at, at + len(own))))
            at += len(own)
        return "".join(found)

    def token(self, number: int) -> str:
        """The name of a token in the vocabulary, in one line."""
        return escape_controls(str(self._tokenizer.id_to_token(number))).replace("\n", "\\n")

    def is_control(self, number: int) -> bool:
        """Whether an id is that of a control token."""
        return number in self._control

    def _between(self, ids: Sequence[int], start: int, end: int) -> str:
        """The text of a run; decoded with the tokens before it, as a decoder drops the space at
        the start of a text."""
        before, whole = self._decode(ids[:start]), self._decode(ids[:end])
        return whole[len(before) :] if whole.startswith(before) else self._decode(ids[start:end])

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


def trained_spans(record: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Start and end of each run of tokens with a label; the first token of a sample has none."""
    spans = record.get("spans") or [record["prompt_tokens"], len(record["input_ids"])]
    found = [(max(1, a), b) for a, b in zip(spans[::2], spans[1::2], strict=True)]
    return [(a, b) for a, b in found if a < b]


def token_lines(
    record: Mapping[str, Any], view: TokenView, color: bool, with_ids: bool = False
) -> list[str]:
    """A tokenized row, with its masked and its trained parts separated.

    Args:
        record: A row of the tokenized rows.
        view: Of its tokenizer.
        color: Masked dim and trained green; otherwise each part between tags in brackets.
        with_ids: One line for each token instead, with its id.
    """
    ids = record["input_ids"]
    spans = trained_spans(record)
    trained = sum(end - start for start, end in spans)
    lines = [f"row {record['row_id']}: {len(ids)} tokens, {len(ids) - trained} masked, "]
    lines[0] += f"{trained} trained"
    if with_ids:
        return [*lines, *_id_lines(ids, spans, view, color)]
    parts = [(name, view.text(ids, start, end)) for name, start, end in _parts(len(ids), spans)]
    if color:
        return [*lines, "".join(f"{_color(name)}{text}{PLAIN}" for name, text in parts)]
    return [*lines, *(line for name, text in parts for line in (f"[{name}]", text, f"[/{name}]"))]


def _parts(count: int, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    """("masked" or "trained", start, end) of all parts."""
    at = 0
    for start, end in spans:
        if at < start:
            yield "masked", at, start
        yield "trained", start, end
        at = end
    if at < count:
        yield "masked", at, count


def _id_lines(
    ids: Sequence[int], spans: Sequence[tuple[int, int]], view: TokenView, color: bool
) -> Iterator[str]:
    for name, start, end in _parts(len(ids), spans):
        for at in range(start, end):
            token = view.token(ids[at])
            shown = f"⟦{token}⟧" if view.is_control(ids[at]) else token
            line = f"{at:>7} {ids[at]:>8} {name:<8}{shown}"
            yield f"{_color(name)}{line}{PLAIN}" if color else line


def _color(name: str) -> str:
    return GREEN if name == "trained" else DIM
