"""Declaration of a setting: bounds, description with unit, and whether it enters cache keys."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A frozen group of settings; an unknown field is an error.

    Contains fields and validators only, no methods that a stage calls: the values enter the cache
    key, the code of this module does not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def unkeyed(default: Any, *, description: str, **bounds: Any) -> Any:
    """A setting that cannot change a stage's output (log interval, workers); in no cache key."""
    return Field(default, description=description, json_schema_extra={"keyed": False}, **bounds)


def is_keyed(field: FieldInfo) -> bool:
    """Whether the value of a field enters the cache key of the stages that read it."""
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("keyed") is False)
