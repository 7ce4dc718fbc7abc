"""Loads profiles and overrides into one validated, frozen `Config`; gives each stage a view of it.

A profile is a YAML file with the fields that differ from the defaults in `tasks.core.settings`. All
errors are reported at once, each with the name of the field and, for an unknown field, the closest
valid name.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from tasks.core.errors import PipelineError
from tasks.core.settings.base import BaseSettings
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.core.settings.fields import Section, is_keyed
from tasks.core.settings.filter import FilterSettings
from tasks.core.settings.hardware import HardwareSettings
from tasks.core.settings.ingest import IngestSettings
from tasks.core.settings.merge import MergeSettings
from tasks.core.settings.prompt import PromptSettings
from tasks.core.settings.tokenize import TokenizeSettings
from tasks.core.settings.train import TrainSettings

SCRATCH_SECTION = "hardware"


class Config(Section):
    """All settings of a run: one section per stage, and the machine."""

    base: BaseSettings = Field(BaseSettings(), description="The base model.")
    ingest: IngestSettings = Field(IngestSettings(), description="The sources of the rows.")
    filter: FilterSettings = Field(FilterSettings(), description="The rules that rows must pass.")
    prompt: PromptSettings = Field(
        PromptSettings(), description="The conversion of rows to prompts."
    )
    tokenize: TokenizeSettings = Field(
        TokenizeSettings(), description="The conversion of text to packed windows."
    )
    train: TrainSettings = Field(TrainSettings(), description="The 4-bit LoRA training.")
    evaluate: EvaluateSettings = Field(EvaluateSettings(), description="The evaluation.")
    merge: MergeSettings = Field(MergeSettings(), description="The merged model.")
    hardware: HardwareSettings = Field(
        HardwareSettings(), description="The machine; in no cache key."
    )


class View:
    """The part of a `Config` that one stage declares in `reads`, and `hardware`.

    Reading anything else raises: an undeclared setting would be missing from the cache key, and the
    cache would return stale artifacts.
    """

    if TYPE_CHECKING:
        base: BaseSettings
        ingest: IngestSettings
        filter: FilterSettings
        prompt: PromptSettings
        tokenize: TokenizeSettings
        train: TrainSettings
        evaluate: EvaluateSettings
        merge: MergeSettings
        hardware: HardwareSettings

    def __init__(self, config: Config, reads: Iterable[str], stage: str = "?") -> None:
        self._config = config
        self._reads = frozenset(reads)
        self._stage = stage

    def __getattr__(self, section: str) -> Any:
        if section.startswith("_"):
            raise AttributeError(section)
        value = getattr(self._config, section)
        if section in self._reads or section == SCRATCH_SECTION:
            return value
        fields = {name.partition(".")[2] for name in self._reads if name.startswith(section + ".")}
        if fields:
            return _FieldView(value, section, fields, self._stage)
        raise AttributeError(_hidden_input(self._stage, section))

    def slice(self) -> dict[str, Any]:
        """Values of the declared fields that enter the cache key: {"section.field": JSON value}."""
        flat: dict[str, Any] = {}
        for name in sorted(self._reads):
            section, _, field = name.partition(".")
            model: BaseModel = getattr(self._config, section)
            values = _keyed_values(model)
            flat.update({f"{section}.{k}": v for k, v in values.items() if not field or k == field})
        return flat


class _FieldView:
    """A view of single fields of a section, for a stage that reads only those."""

    def __init__(self, model: BaseModel, section: str, fields: set[str], stage: str) -> None:
        self._model, self._section, self._fields, self._stage = model, section, fields, stage

    def __getattr__(self, field: str) -> Any:
        if field.startswith("_"):
            raise AttributeError(field)
        if field not in self._fields:
            raise AttributeError(_hidden_input(self._stage, f"{self._section}.{field}"))
        return getattr(self._model, field)


def _hidden_input(stage: str, name: str) -> str:
    return f'stage {stage} reads {name} without declaring it: add "{name}" to `reads` of its Stage'


def _keyed_values(model: BaseModel) -> dict[str, Any]:
    """JSON values of the keyed fields, including those of nested models."""
    dumped = model.model_dump(mode="json")
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if not is_keyed(field):
            dumped.pop(name)
        elif isinstance(value, BaseModel):
            dumped[name] = _keyed_values(value)
        elif isinstance(value, (tuple, list)) and any(
            isinstance(item, BaseModel) for item in value
        ):
            dumped[name] = [_keyed_values(i) if isinstance(i, BaseModel) else i for i in value]
    return dumped


def load(profile: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a profile and apply overrides.

    Args:
        profile: A YAML file with sections as in `Config`.
        overrides: "section.field=value" each; the value is parsed as YAML, so that numbers, lists
            and null work.

    Raises:
        PipelineError: Names every invalid field.
    """
    import yaml

    try:
        text = profile.read_text(encoding="utf-8")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        node = loader.get_single_node()
        twice = _given_twice(node)
        raw = (loader.construct_document(node) if node else None) or {}
    except OSError as error:
        raise PipelineError(
            f"profile {profile} cannot be read: {error.strerror}", "Check the path."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise PipelineError(
            f"profile {profile} is not YAML{line}",
            "Correct the file, or start from one that `finetune profiles` lists.",
        ) from error
    if twice:
        raise PipelineError(
            f"profile {profile}, line {twice.start_mark.line + 1}: {twice.value} stands here for "
            "the second time",
            "Join the two: YAML would drop the first without a word.",
        )
    if not isinstance(raw, dict):
        raise PipelineError(
            f"profile {profile} contains a {type(raw).__name__} instead of sections",
            "Write `section:` and indented `field: value` lines.",
        )
    for override in overrides:
        _apply(raw, override)
    return check(raw)


def _given_twice(document: Any) -> Any:
    """The first key of a YAML document that its mapping has already; None if there is none."""
    waiting, known = [document], set()
    while waiting:
        node = waiting.pop(0)
        if id(node) in known or not isinstance(getattr(node, "value", None), list):
            continue
        known.add(id(node))  # an alias leads to the same node again
        keys = set()
        for item in node.value:
            key, inner = item if isinstance(item, tuple) else (None, item)
            if key is not None and isinstance(key.value, str):
                if key.value in keys:
                    return key
                keys.add(key.value)
            waiting.append(inner)
    return None


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set "section.field=value" in a raw profile, and create missing sections; `[0]` or `.0` is the
    first item of a list."""
    import yaml

    path, equals, text = override.partition("=")
    names = path.strip().replace("[", ".").replace("]", "").split(".")
    if not equals or len(names) < 2:
        raise PipelineError(
            f"--set {override!r} is not section.field=value",
            "Write for example --set train.lora_rank=16.",
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PipelineError(
            f"--set {override!r}: the value is not YAML",
            "Quote it, or write a plain number, word or [list].",
        ) from error
    place: Any = raw
    for name in names[:-1]:
        place = _inner(place, name, override)
    if isinstance(place, list):
        _inner(place, names[-1], override)  # the item must exist
        place[int(names[-1])] = value
    else:
        place[names[-1]] = value


def _inner(place: Any, name: str, override: str) -> Any:
    """A section of a raw profile, created if it is missing, or an item of a list."""
    if isinstance(place, list):
        if not name.isdecimal() or int(name) >= len(place):
            raise PipelineError(
                f"--set {override!r}: there is no item {name!r}, the list has {len(place)}",
                "Count items from 0, or set the whole list.",
            )
        return place[int(name)]
    inner = place.get(name)
    if not isinstance(inner, (dict, list)):
        inner = place[name] = {}
    return inner


def check(raw: Mapping[str, Any]) -> Config:
    """Validate a raw profile; all problems are reported in one `PipelineError`."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        problems = [_describe(dict(e)) for e in error.errors()]
        raise PipelineError(
            "; ".join(problem for problem, _ in problems),
            " ".join(dict.fromkeys(remedy for _, remedy in problems)),
        ) from error


def _describe(error: dict[str, Any]) -> tuple[str, str]:
    """Translate one pydantic error to (problem, remedy)."""
    location: tuple[Any, ...] = error["loc"]
    name = ".".join(str(part) for part in location)
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = ", ".join(str(_tag(m)) for m in _models_in(_annotation(location)))
        return f"{name}.kind: missing or unknown kind of source", f"Set kind to one of: {kinds}."
    if error["type"] == "extra_forbidden":
        known = _known_names(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        what = "section" if len(location) == 1 else "field"
        hint = (
            f"Did you mean {'.'.join([*map(str, location[:-1]), near[0]])}?"
            if near
            else f"Valid names: {', '.join(known)}."
        )
        return f"{name}: unknown {what}", hint
    message = str(error["msg"]).removeprefix("Value error, ")
    problem, _, remedy = message.partition("\n")
    value = error.get("input")
    shown = (
        f" (it is {value!r})"
        if error["type"] != "value_error" and not isinstance(value, dict)
        else ""
    )
    return f"{name}: {problem}{shown}", remedy or f"Change {name}."


def _known_names(location: tuple[Any, ...]) -> list[str]:
    """Valid field names at a location of the config; [] if the location is not a section.

    A location inside a union of sections contains the tag of the chosen one ("sources.0.files").
    """
    models: list[type[BaseModel]] = [Config]
    for part in location:
        if isinstance(part, int):
            continue
        tagged = [m for m in models if m.model_fields.get("kind") and _tag(m) == part]
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        models = tagged or [found for f in fields for found in _models_in(f.annotation)]
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _annotation(location: tuple[Any, ...]) -> Any:
    """The annotation of the field that contains the location "section.field..."."""
    section: Any = Config.model_fields[location[0]].annotation
    return section.model_fields[location[1]].annotation


def _tag(model: type[BaseModel]) -> Any:
    return model.model_fields["kind"].default


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models inside an annotation such as `tuple[A | B, ...]` or `A | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for inner in getattr(annotation, "__args__", ()) for m in _models_in(inner)]
