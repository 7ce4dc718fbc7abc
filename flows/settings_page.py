"""docs/settings.md out of the settings' own declarations: `python -m flows.settings_page`.

Every field with its default, its bounds and its description, one table a section, nested sections
after their own.
"""

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tasks.core.config import Config
from tasks.core.home import REPOSITORY
from tasks.core.settings.fields import is_keyed

PAGE = REPOSITORY / "docs" / "settings.md"
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
LONG = 60
HEAD = """# Settings

Made from the code by `python -m flows.settings_page`; a test checks that this page is up to date.

A profile says only what differs from these defaults. On the command line:
`--set train.lora_rank=16`, the value read as YAML.
A field marked ° can't change what a stage makes and is in no key, like all of `hardware`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, field in Config.model_fields.items():
        model = _models(field.annotation)[0]
        parts += list(_section(name, model))
    return "\n".join(parts)


def _section(name: str, model: type[BaseModel], level: int = 2) -> Iterator[str]:
    """Heading, description and table of a section, then the sections in it."""
    yield f"{'#' * level} `{name}`\n"
    yield f"{_one_line(model.__doc__ or '')}\n"
    yield "| field | default | values | what it is |\n|---|---|---|---|"
    rows = [_row(n, f) for n, f in model.model_fields.items()]
    yield "\n".join(rows) + "\n"
    for field_name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            kind = inner.model_fields.get("kind")
            title = f"{name}.{field_name}"
            tag = get_args(kind.annotation) if kind else ()
            title += f", kind {tag[0]}" if len(tag) == 1 else ""
            yield from _section(title, inner, min(level + 1, 4))


def _row(name: str, field: FieldInfo) -> str:
    mark = "" if is_keyed(field) else " °"
    cells = [f"`{name}`{mark}", _default(field), _values(field), _one_line(field.description or "")]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        return _code([item.model_dump(mode="json", exclude_defaults=True) for item in value])
    return _code(value)


def _code(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > LONG and isinstance(value, (list, tuple)):
        text = f"[{json.dumps(value[0], ensure_ascii=False)}, … {len(value)} in all]"
    return f"`{text}`"


def _values(field: FieldInfo) -> str:
    """Type and bounds in words."""
    bounds = [
        f"{sign} {getattr(part, name)}"
        for part in field.metadata
        for name, sign in BOUNDS.items()
        if getattr(part, name, None) is not None
    ]
    return ", ".join([_type(field.annotation), *bounds])


def _type(annotation: Any) -> str:
    """A type as a person says it."""
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in get_args(annotation)))
    if get_origin(annotation) is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if _models(annotation):
        return "section"
    if annotation is type(None):
        return "null"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(annotation, str(getattr(annotation, "__name__", annotation)))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main(path: Path = PAGE) -> int:
    """Write the page."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
