"""How a setting is declared: bounds, a description with its unit, whether it enters a key."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A frozen group of settings; an unknown field is an error. Holds data and validators only, no
    methods that a
    stage calls: the values are what enters a key, this code is not."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def unkeyed(default: Any, *, description: str, **bounds: Any) -> Any:
    """A setting that can't change what a stage produces (log interval, workers); in no key."""
    return Field(default, description=description, json_schema_extra={"keyed": False}, **bounds)


def is_keyed(field: FieldInfo) -> bool:
    """Whether a field's value enters the key of the stages that read it."""
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("keyed") is False)
