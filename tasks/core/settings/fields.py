"""Declaration of a setting: bounds, description with unit, and whether it enters cache keys."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

COMMIT = "^[0-9a-f]{40}$"  # pattern of a commit of the hub
_WORDS = {False: ("off", "no"), True: ("on", "yes")}


class Section(BaseModel):
    """A frozen group of settings; an unknown field is an error.

    Contains fields and validators only, no methods that a stage calls: the values enter the cache
    key, the code of this module does not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _words_that_yaml_reads_as_booleans(cls, data: Any) -> Any:
        """Accept `off`, `no`, `on` and `yes` where a field lists them: YAML reads them as
        booleans."""
        if not isinstance(data, Mapping):
            return data
        return {name: cls._word(name, value) for name, value in data.items()}

    @classmethod
    def _word(cls, name: Any, value: Any) -> Any:
        field = cls.model_fields.get(name)
        if not isinstance(value, bool) or field is None:
            return value
        known = get_args(field.annotation)
        return next((word for word in _WORDS[value] if word in known), value)


def unkeyed(default: Any, *, description: str, **bounds: Any) -> Any:
    """A setting that cannot change a stage's output (log interval, workers); in no cache key."""
    return Field(default, description=description, json_schema_extra={"keyed": False}, **bounds)


def is_keyed(field: FieldInfo) -> bool:
    """Whether the value of a field enters the cache key of the stages that read it."""
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("keyed") is False)
