"""Writes the training's prompt format into the folder of the merged model.

Out: the chat template in tokenizer_config.json, the tokens that end an answer in
generation_config.json, and prompt_format.json with what those files have no place for. Texts that
end an answer are not written as `stop_strings` of generation_config.json: `generate` then raises
unless it is given the tokenizer, and every answer of the training ends in an end token anyway.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.core.models.pretrained import read_tokenizer
from tasks.core.text import prompt_templates
from tasks.core.text.chat_environment import Renderer, compiled
from tasks.core.text.prompt_templates import PromptTemplate
from tasks.core.text.row_encoder import RowEncoder
from tasks.core.text.special_tokens import MissingTokenError, literal
from tasks.core.text.text_encoder import TextEncoder
from tasks.merging.prompt_format.chat_template import adapted_chat_template, chat_template_of
from tasks.merging.prompt_format.modelfile import modelfile
from tasks.merging.prompt_format.turn_layout import (
    Messages,
    TurnLayout,
    layout_of_chat,
    layout_of_text,
)

FORMAT_FILE = "prompt_format.json"
TASK = "Write a function that returns the n-th Fibonacci number."


@dataclass(frozen=True)
class PromptFormat:
    """How to prompt a model as it was trained.

    Attributes:
        example: The prompt of `TASK`, control tokens by their names.
        stop: Texts that end an answer; the first that occurs counts.
        infilling: Names of the tokens before prefix, suffix and middle; of two, before suffix and
            prefix; None without.
        system: System text of conversations that have none.
        layout: Of the chat template, without the tokens that the tokenizer adds itself; None if it
            is no sequence of turns.
    """

    example: str
    stop: tuple[str, ...]
    infilling: tuple[str, ...] | None
    system: str
    layout: TurnLayout | None

    def modelfile(self, gguf: str) -> str:
        """The Modelfile of a GGUF file in the same folder."""
        return modelfile(gguf, self.layout, self.system, self.stop, self.infilling)


def ship(template: PromptTemplate, folder: Path) -> PromptFormat:
    """Write the prompt format of a training into a model's folder, which has a tokenizer.

    Args:
        template: Of the training.
        folder: The merged model.
    """
    tokenizer = read_tokenizer(folder)
    names = tokenizer.special_tokens_map
    bos = "".join(tokenizer.convert_ids_to_tokens(TextEncoder(tokenizer).prefix))
    if template.is_chat:
        own = template.text != "chat"
        source = template.text if own else tokenizer.get_chat_template(None, None)
        plain = Renderer(compiled(source, template.date), None, names)
        system = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
        chat_template = adapted_chat_template(
            source, template, "S" in (plain.attempt(system, True) or "")
        )
    else:
        layout = layout_of_text(template)
        starts = bool(bos) and layout.opening.startswith(bos)
        chat_template = chat_template_of(layout, template.system, "" if starts else bos)
    rendered = Renderer(compiled(chat_template, template.date), None, names)

    def prompt(messages: Messages) -> str:
        return rendered(messages, True).removeprefix(bos)

    encoder = RowEncoder(tokenizer)
    stop, ends = _ends(template, encoder, tokenizer)
    made = PromptFormat(
        example=prompt([{"role": "user", "content": TASK}]),
        stop=stop,
        infilling=_infilling(encoder, tokenizer),
        system="" if template.is_chat else template.system,
        layout=layout_of_chat(prompt) if template.is_chat else layout,
    )
    _write_chat_template(folder, chat_template)
    _write_ends(folder / "generation_config.json", ends)
    public = {name: asdict(made)[name] for name in ("infilling", "stop")}
    _write_json(folder / FORMAT_FILE, public)
    return made


def _ends(
    template: PromptTemplate, encoder: RowEncoder, tokenizer: Any
) -> tuple[tuple[str, ...], list[int]]:
    """Texts and tokens that end an answer."""
    marker = prompt_templates.stop_of(template)
    ids = [encoder.eos]
    if "\0" in marker:
        first = encoder.encode([marker])[0][:1]
        ids += [token for token in first if token in encoder.ends and token not in ids]
    if template.is_chat:
        texts = tokenizer.convert_ids_to_tokens(ids[1:])
    else:  # as training wrote it first, so that the blank lines before it are cut, too
        texts = [literal(prompt_templates.complete(template, "")).rstrip(), literal(marker)]
    return tuple(dict.fromkeys(filter(None, texts))), ids


def _infilling(encoder: RowEncoder, tokenizer: Any) -> tuple[str, ...] | None:
    try:
        ids = list(encoder.control.infilling().values())
    except MissingTokenError:
        return None
    return tuple(tokenizer.convert_ids_to_tokens(ids))


def _write_chat_template(folder: Path, template: str) -> None:
    """Write the template to tokenizer_config.json, the one place that every program reads."""
    (folder / "chat_template.jinja").unlink(missing_ok=True)  # would take precedence
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    _write_json(path, settings | {"chat_template": template})


def _write_ends(path: Path, ends: Sequence[int]) -> None:
    """Add the tokens that end an answer to the base's."""
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = settings.get("eos_token_id")
    ids = dict.fromkeys([*(known if isinstance(known, list) else [known]), *ends])
    found = [token for token in ids if token is not None]
    _write_json(path, settings | {"eos_token_id": found if len(found) > 1 else found[0]})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.unlink(missing_ok=True)  # may be a hard link
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
