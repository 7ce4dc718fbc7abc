"""Why a stage runs: its key's parts beside those of the nearest artifact that it made before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.keys import Parts
from tasks.core.manifest import Manifest

KINDS = (
    "never ran",
    "config",
    "code",
    "data",
    "env",
    "missing",
    "edited",
    "unreadable",
    "forced",
    "schema",
)


@dataclass(frozen=True)
class Cause:
    """One reason.

    Attributes:
        kind: One of `KINDS`.
        what: The setting, module, input, package or file.
        old: Its value in the nearest earlier artifact, where that says something.
        new: Its value now.
    """

    kind: str
    what: str
    old: Any = None
    new: Any = None

    def to_json(self) -> dict[str, Any]:
        """The form in `finetune plan --json`."""
        return {"kind": self.kind, "what": self.what, "old": self.old, "new": self.new}

    def __str__(self) -> str:
        if self.kind in ("never ran", "forced"):
            return self.kind
        if self.kind == "data":
            return f"data {self.what}"  # the digests say nothing to a reader
        change = (
            ""
            if self.old is None and self.new is None
            else f" {_shown(self.old)} -> {_shown(self.new)}"
        )
        return f"{self.kind} {self.what}{change}"


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(parts: Parts, manifests: Sequence[Manifest]) -> Manifest | None:
    """The artifact whose key differs in the fewest parts; of equals, the first."""
    return min(manifests, key=lambda m: len(difference(parts, m)), default=None)


def difference(parts: Parts, manifest: Manifest | None) -> tuple[Cause, ...]:
    """What changed since an earlier artifact; parts that `parts` does not hold are not compared."""
    if manifest is None:
        return (Cause("never ran", str(parts["stage"])),)
    old = manifest.parts
    causes: list[Cause] = []
    if old.get("schema") != parts["schema"]:
        causes.append(Cause("schema", parts["stage"], old.get("schema"), parts["schema"]))
    causes += _changed("config", old.get("config", {}), parts["config"])
    causes += [Cause("code", name) for name in _changed_code(old.get("code", {}), parts["code"])]
    causes += [
        Cause("data", c.what, _digits(c.old), _digits(c.new))
        for c in _changed("data", old.get("sources", {}), parts["sources"])
    ]
    if "inputs" in parts:
        causes += [
            Cause("data", c.what, _digits(c.old), _digits(c.new))
            for c in _changed("data", old.get("inputs", {}), parts["inputs"])
        ]
    causes += _changed("env", old.get("env", {}), parts["env"])
    return tuple(causes)


def _changed(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Cause]:
    names = sorted(old.keys() | new.keys())
    return [Cause(kind, n, old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)]


def _changed_code(
    old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Changed modules with what changed in them: "tasks/filtering/rules.py (alphabetic_share)"."""
    shown = []
    for module in sorted(old.keys() | new.keys()):
        before, after = old.get(module, {}), new.get(module, {})
        if before == after:
            continue
        names = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        more = ", ..." if len(names) > 3 else ""
        shown.append(f"{module.replace('.', '/')}.py ({', '.join(names[:3])}{more})")
    return shown


def _digits(value: Any) -> Any:
    """A digest is shown by its first digits; anything else as it is."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else value
