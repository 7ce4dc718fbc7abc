"""The promoted model: artifacts/champion, a link to its artifact, and the account of every change.

artifacts/.champion.json is written first, the link second, each whole by one rename. What the
account says holds; a link that a kill left behind it is set right by the next command. Promotions
pile up, `rollback` takes the last one off; an entry is never removed from the account.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.cache.store import KEY_DIGITS, Store
from tasks.core.errors import PipelineError
from tasks.core.system.atomic_write import flush, write_text
from tasks.core.system.file_lock import locked

LINK, HISTORY = "champion", ".champion.json"
PROMOTE, ROLLBACK = "promote", "rollback"
IMPROVED, REGRESSED = "improved", "regressed"
KEPT = 3  # promotions whose artifacts `finetune gc` leaves alone


@dataclass(frozen=True)
class Entry:
    """One change of the champion.

    Attributes:
        action: `PROMOTE` or `ROLLBACK`.
        stage: Of the artifact that is the champion from then on.
        key: Of that artifact.
        why: In the words of whoever did it; "" where nothing was said.
        when: ISO 8601, UTC.
        verdicts: What the model was compared with ("base", "champion") -> verdict.
        reasons: The same -> sentences.
        forced: Promoted although it is not shown to be better.
        beaten: Key of the champion before; "" none.
        metrics: Measured values by name.
        chain: Stage -> key of all artifacts that it rests on, itself included.
        profile: That it was made with.
        overrides: The same.
    """

    action: str
    stage: str
    key: str
    why: str = ""
    when: str = ""
    verdicts: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, Sequence[str]] = field(default_factory=dict)
    forced: bool = False
    beaten: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    chain: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Folder of the artifact below artifacts/."""
        return f"{self.stage}/{self.key[:KEY_DIGITS]}"


def check(
    verdicts: Mapping[str, str],
    reasons: Mapping[str, Sequence[str]],
    *,
    force: bool,
    because: str,
) -> bool:
    """Whether a model may become the champion; returns whether it took force.

    Worse than the base is refused in any case: nobody would be served by it. Anything else that is
    not shown to be better takes a person and a reason.

    Args:
        verdicts: "base", and "champion" where there is one -> verdict.
        reasons: The same -> sentences.
        force: Promote what is not shown to be better.
        because: The reason for that.

    Raises:
        PipelineError: It may not.
    """
    if verdicts["base"] == REGRESSED:
        raise PipelineError(
            f"the model is worse than the base: {' '.join(reasons['base'])}",
            "Change data or training and run again; a regressed model is not promoted, forced or "
            "not.",
        )
    if force and not because.strip():
        raise PipelineError(
            "--force is given without a reason", 'Add --because "...": it is recorded.'
        )
    short = [name for name, verdict in verdicts.items() if verdict != IMPROVED]
    if short and not force:
        told = "; ".join(f"against the {n} {verdicts[n]}: {' '.join(reasons[n])}" for n in short)
        raise PipelineError(
            f"the model is not shown to be better ({told})",
            'Train or measure more, or: finetune promote --force --because "...", which is '
            "recorded.",
        )
    return bool(short)


def history(root: Path) -> list[Entry]:
    """Every change, oldest first.

    Raises:
        PipelineError: The file is there and can't be read.
    """
    path = root / HISTORY
    try:
        raw = json.loads(path.read_bytes())
        return [Entry(**{**entry, "overrides": tuple(entry["overrides"])}) for entry in raw]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PipelineError(
            f"{path} is no history of champions: {error}",
            "Put a copy of it back; or remove it and promote again.",
        ) from error


def standing(entries: Sequence[Entry]) -> list[Entry]:
    """The promotions that no rollback took back, oldest first; the last is the champion."""
    pile: list[Entry] = []
    for entry in entries:
        if entry.action == PROMOTE:
            pile.append(entry)
        elif pile:
            pile.pop()
    return pile


def taken_back(entries: Sequence[Entry], key: str) -> Entry | None:
    """The rollback that took a model down, unless it was promoted again since.

    Args:
        entries: Every change, oldest first.
        key: Of the model's artifact.
    """
    for entry in reversed(entries):
        if entry.action == PROMOTE and entry.key == key:
            return None
        if entry.action == ROLLBACK and entry.beaten == key:
            return entry
    return None


def current(store: Store) -> Entry | None:
    """The champion, None if there is none; the link is set right if a kill left it behind."""
    with _alone(store):
        pile = standing(history(store.root))
        if not pile:
            return None
        _point(store.root, pile[-1].name)
        return pile[-1]


def promote(store: Store, entry: Entry) -> bool:
    """Make an artifact the champion; False if it is already.

    Args:
        store: Holds the artifact, and is in use by the caller.
        entry: Without `when` and `beaten`.

    Raises:
        PipelineError: The artifact is not whole.
    """
    _see_whole(store, entry, "Run `finetune run` with the same settings.")
    with _alone(store):
        entries = history(store.root)
        pile = standing(entries)
        if pile and pile[-1].key == entry.key:
            _point(store.root, pile[-1].name)
            return False
        beaten = pile[-1].key if pile else ""
        _write(store.root, [*entries, dataclasses.replace(entry, when=_now(), beaten=beaten)])
        _point(store.root, entry.name)
        return True


def rollback(store: Store, because: str = "") -> tuple[Entry, Entry]:
    """Take the last promotion back.

    Args:
        store: Is in use by the caller.
        because: Recorded.

    Returns: The champion until now, and the one from now on.

    Raises:
        PipelineError: There is none before it, or its artifact is not whole.
    """
    with _alone(store):
        entries = history(store.root)
        pile = standing(entries)
        if len(pile) < 2:
            raise PipelineError(
                f"promotions that stand: {len(pile)}, needed to go back: 2",
                "Promote one first: finetune promote.",
            )
        last, before = pile[-1], pile[-2]
        made = " ".join(["--profile", before.profile, *(f"--set {o}" for o in before.overrides)])
        _see_whole(store, before, f"Make it again: finetune run {made}")
        change = Entry(ROLLBACK, before.stage, before.key, because, _now(), beaten=last.key)
        _write(store.root, [*entries, change])
        _point(store.root, before.name)
        return last, before


def pinned(root: Path, last: int = KEPT) -> frozenset[str]:
    """Keys of all artifacts that the champion and the promotions before it rest on.

    Args:
        root: The artifacts folder.
        last: So many promotions, the champion among them.
    """
    pile = standing(history(root))[-last:]
    return frozenset(key for entry in pile for key in (entry.key, *entry.chain.values()))


def _alone(store: Store) -> AbstractContextManager[None]:
    return locked(store.root / ".locks" / "champion")


def _see_whole(store: Store, entry: Entry, remedy: str) -> None:
    found = store.find(entry.stage, entry.key)
    if found.manifest is None:
        problem = " ".join(found.problem) if found.problem else "it is gone"
        raise PipelineError(f"the artifact {entry.name} is not whole ({problem})", remedy)


def _point(root: Path, target: str) -> None:
    """Let the link name `target`; relative, so that `root` may be moved as a whole."""
    link, temporary = root / LINK, root / f".{LINK}.new"
    if link.is_symlink() and str(link.readlink()) == target:
        return
    if link.exists() and not link.is_symlink():
        raise PipelineError(f"{link} is in the way: it is no link", "Move it elsewhere.")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    flush(root)


def _write(root: Path, entries: Sequence[Entry]) -> None:
    plain = [dataclasses.asdict(entry) for entry in entries]
    write_text(root / HISTORY, json.dumps(plain, indent=1, ensure_ascii=False))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
