"""Causes of a run: the parts of a key compared with those of the nearest earlier artifact."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from tasks.core.cache.cache_key import Parts, canonical
from tasks.core.cache.code.definitions import IMPORTS, ORDER, STATEMENTS
from tasks.core.cache.code_digest import code_digest, content_digest
from tasks.core.cache.manifest import Manifest
from tasks.core.system.home import REPOSITORY, short_path

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
DIGEST_DIGITS = 64
SHOWN_NAMES = 3
PARTS_OF_MODULES = {
    STATEMENTS: "statements outside functions",
    IMPORTS: "imports",
    ORDER: "order of definitions",
}
SHORT_LIST = 40  # characters of a list that is shown whole
SHOWN_MEMBERS = 5


@dataclass(frozen=True)
class Cause:
    """One reason why a stage runs.

    Attributes:
        kind: One of `KINDS`.
        what: The setting, module, input, package or file.
        old: Its value in the nearest earlier artifact, where it is informative.
        new: Its value now.
        detail: For code the changed definitions; for data the files or the number of rows; for a
            list of settings what was added and removed.
    """

    kind: str
    what: str
    old: Any = None
    new: Any = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """The form in `finetune plan --json`."""
        return {
            "kind": self.kind,
            "what": self.what,
            "old": self.old,
            "new": self.new,
            "detail": self.detail,
        }

    def __str__(self) -> str:
        if self.kind in ("never ran", "forced"):
            return self.kind
        if self.kind == "code":
            return f"code {self.what} ({_first(in_words(self.detail).split(', '))})"
        if self.detail:
            return f"{self.kind} {self.what} ({self.detail})"
        known = [value for value in (self.old, self.new) if value is not None]
        if not known or all(map(_is_digest, known)):  # a digest does not inform a reader
            return f"{self.kind} {self.what}"
        return f"{self.kind} {self.what} {_shown(self.old)} -> {_shown(self.new)}"


def in_words(changed: str) -> str:
    """Changed definitions, functions and classes before what a reader can't look up by name."""
    names = [name for name in changed.split(", ") if name not in PARTS_OF_MODULES]
    return ", ".join(names or [PARTS_OF_MODULES[name] for name in changed.split(", ")])


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == DIGEST_DIGITS


def _shown(value: Any) -> str:
    text = "none" if value is None else short_path(str(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _first(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def nearest(parts: Parts, manifests: Sequence[Manifest]) -> Manifest | None:
    """The artifact whose key differs in the fewest parts; the first of several."""
    return min(manifests, key=lambda m: len(difference(parts, m)), default=None)


def difference(parts: Parts, manifest: Manifest | None) -> tuple[Cause, ...]:
    """What changed since an earlier artifact; parts missing from `parts` are not compared."""
    if manifest is None:
        return (Cause("never ran", str(parts["stage"])),)
    old = manifest.parts
    causes: list[Cause] = []
    if old.get("schema") != parts["schema"]:
        causes.append(Cause("schema", parts["stage"], old.get("schema"), parts["schema"]))
    causes += setting_changes(old.get("config", {}), parts["config"])
    causes += _changed_code(old.get("code", {}), parts["code"])
    causes += _changed("data", old.get("sources", {}), parts["sources"])
    if "inputs" in parts:
        causes += _changed("data", old.get("inputs", {}), parts["inputs"])
    causes += _changed("env", old.get("env", {}), parts["env"])
    return tuple(causes)


def module_file(module: str) -> str:
    """Path of a module below the packages' folder."""
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (REPOSITORY / path).is_dir() else f"{path}.py"


def can_be_accepted(causes: Sequence[Cause]) -> bool:
    """Whether only code and packages changed: the user may declare that harmless (`accept`)."""
    return bool(causes) and {cause.kind for cause in causes} <= {"code", "env"}


def setting_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Cause]:
    """Changed settings, nested ones by the field that differs."""
    names = sorted(old.keys() | new.keys())
    return [c for name in names for c in _leaf_changes(name, old.get(name), new.get(name))]


def _changed(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Cause]:
    names = sorted(old.keys() | new.keys())
    return [Cause(kind, n, old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)]


def _changed_code(
    old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]
) -> list[Cause]:
    """Changed modules, each with the definitions that changed in it.

    A module with the same content under another name was moved, which is no cause.
    """
    if code_digest(old) == code_digest(new):
        return []
    unmoved = {content_digest(d) for d in old.values()} & {content_digest(d) for d in new.values()}
    edited: list[Cause] = []
    redirected: list[Cause] = []
    for module in sorted(old.keys() | new.keys()):
        before, after = old.get(module, {}), new.get(module, {})
        names = [n for n in sorted(before.keys() | after.keys()) if before.get(n) != after.get(n)]
        if not names:
            continue
        cause = Cause("code", module_file(module), detail=", ".join(names))
        moved = {content_digest(d) for d in (before, after) if d} <= unmoved
        (redirected if moved else edited).append(cause)
    return edited or redirected


def _leaf_changes(name: str, old: Any, new: Any) -> Iterator[Cause]:
    """The changes inside a setting; none if its values are equal."""
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping) and _are_alike(old, new):
        for field in sorted(old.keys() | new.keys()):
            yield from _leaf_changes(f"{name}.{field}", old.get(field), new.get(field))
    elif isinstance(old, Sequence) and isinstance(new, Sequence) and not isinstance(old, str):
        if any(isinstance(item, Mapping) for item in (*old, *new)):
            yield from _section_changes(name, old, new)
        else:
            yield _member_change(name, old, new)
    else:
        yield Cause("config", name, old, new)


def _are_alike(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two sections are of one kind, so that their fields can be compared."""
    return old.get("kind") == new.get("kind")


def _section_changes(name: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[Cause]:
    """Changes of a list of sections: sections that are equal are matched first."""
    texts = [canonical(item) for item in old], [canonical(item) for item in new]
    if sorted(texts[0]) == sorted(texts[1]):
        yield Cause("config", name, None, None, "the same members in another order")
        return
    matcher = SequenceMatcher(None, *texts, autojunk=False)
    for kind, a, a_end, b, b_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        common = min(a_end - a, b_end - b)
        gone, came = list(old[a + common : a_end]), list(new[b + common : b_end])
        for before, after, place in zip(old[a:a_end], new[b:b_end], range(b, b_end), strict=False):
            are_sections = isinstance(before, Mapping) and isinstance(after, Mapping)
            if are_sections and not _are_alike(before, after):
                gone.append(before)
                came.append(after)
            else:
                yield from _leaf_changes(f"{name}[{place}]", before, after)
        for verb, items in (("removed", gone), ("added", came)):
            if items:
                yield Cause("config", name, None, None, f"{verb} {_listed([*map(_brief, items)])}")


def _member_change(name: str, old: Sequence[Any], new: Sequence[Any]) -> Cause:
    """The change of a list of plain values."""
    if max(len(str(old)), len(str(new))) <= SHORT_LIST:
        return Cause("config", name, old, new)
    added = [item for item in new if item not in old]
    removed = [item for item in old if item not in new]
    groups = (("added", added), ("removed", removed))
    detail = "; ".join(f"{verb} {_listed(items)}" for verb, items in groups if items)
    return Cause("config", name, old, new, detail or "the same members in another order or number")


def _listed(items: Sequence[Any]) -> str:
    more = len(items) - SHOWN_MEMBERS
    text = ", ".join(map(str, items[:SHOWN_MEMBERS]))
    return f"{text} and {more} more" if more > 0 else text


def _brief(item: Any) -> str:
    """A section by the fields that name it."""
    if not isinstance(item, Mapping):
        return str(item)
    named = [item.get(field) for field in ("kind", "name", "path", "hub_id", "names")]
    return " ".join(short_path(str(value)) for value in named if value) or canonical(item)
