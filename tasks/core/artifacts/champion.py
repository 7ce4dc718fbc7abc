"""The champion, which is the promoted model: a link to its artifact, and the history of changes.

artifacts/.champion.json is written first, the link artifacts/champion second, each atomically. The
history decides; a link that a kill left outdated is corrected by the next command. Promotions form
a stack from which `rollback` removes the last; entries are never removed from the history.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.cache.store import KEY_DIGITS, Store
from tasks.core.errors import PipelineError, RecordError
from tasks.core.system.atomic_write import flush, write_text
from tasks.core.system.file_lock import locked

LINK, HISTORY = "champion", ".champion.json"
PROMOTE, ROLLBACK = "promote", "rollback"
IMPROVED, REGRESSED = "improved", "regressed"
KEPT = 3  # promotions whose artifacts `finetune gc` keeps


@dataclass(frozen=True)
class ChampionChange:
    """One change of the champion.

    Attributes:
        action: `PROMOTE` or `ROLLBACK`.
        stage: Stage of the artifact that becomes the champion.
        key: Key of that artifact.
        why: The reason that the user gave, or "".
        when: ISO 8601, UTC.
        verdicts: Verdict by what the model was compared with ("base", "champion").
        reasons: Sentences, by the same names.
        forced: Promoted without a verdict of improvement.
        beaten: Key of the previous champion, or "".
        metrics: Measured values by name.
        chain: Key of each artifact that it was produced from, by stage, itself included.
        profile: Profile of its run.
        overrides: Overrides of its run.
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
        """The folder of the artifact below artifacts/."""
        return f"{self.stage}/{self.key[:KEY_DIGITS]}"


def check(
    verdicts: Mapping[str, str],
    reasons: Mapping[str, Sequence[str]],
    *,
    force: bool,
    because: str,
) -> bool:
    """Check that a model may become the champion; returns whether that took `force`.

    A model that is worse than the base is always rejected. Any other model without a verdict of
    improvement needs `force` and a reason.

    Args:
        verdicts: Verdict against "base", and against "champion" if there is one.
        reasons: Sentences, by the same names.
        force: Promote without a verdict of improvement.
        because: The reason for `force`.

    Raises:
        PipelineError: It may not be promoted.
    """
    if verdicts["base"] == REGRESSED:
        raise PipelineError(
            f"the model is worse than the base: {' '.join(reasons['base'])}",
            "Change data or training and run again; a regressed model is never promoted.",
        )
    if force and not because.strip():
        raise PipelineError("--force requires a reason", 'Add --because "...": it is recorded.')
    short = [name for name, verdict in verdicts.items() if verdict != IMPROVED]
    if short and not force:
        against = "; ".join(f"against the {n} {verdicts[n]}: {' '.join(reasons[n])}" for n in short)
        raise PipelineError(
            f"the model is not shown to be better ({against})",
            'Train or measure more, or: finetune promote --force --because "...", which is '
            "recorded.",
        )
    return bool(short)


def history(root: Path) -> list[ChampionChange]:
    """Every change, oldest first.

    Raises:
        RecordError: The file exists and cannot be read.
    """
    path = root / HISTORY
    try:
        raw = json.loads(path.read_bytes())
        return [
            ChampionChange(**{**entry, "overrides": tuple(entry["overrides"])}) for entry in raw
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RecordError(
            f"{path} is not a valid history of champions: {error}",
            "Restore a copy of it, or remove it and promote again.",
        ) from error


def standing(entries: Sequence[ChampionChange]) -> list[ChampionChange]:
    """The promotions that were not rolled back, oldest first; the last is the champion."""
    promoted: list[ChampionChange] = []
    for entry in entries:
        if entry.action == PROMOTE:
            promoted.append(entry)
        elif promoted:
            promoted.pop()
    return promoted


def taken_back(entries: Sequence[ChampionChange], key: str) -> ChampionChange | None:
    """The rollback that removed a model, unless the model was promoted again since.

    Args:
        entries: Every change, oldest first.
        key: Key of the model's artifact.
    """
    for entry in reversed(entries):
        if entry.action == PROMOTE and entry.key == key:
            return None
        if entry.action == ROLLBACK and entry.beaten == key:
            return entry
    return None


def current(store: Store) -> ChampionChange | None:
    """The champion, if there is one; corrects a link that a kill left outdated."""
    with _alone(store):
        promoted = standing(history(store.root))
        if not promoted:
            return None
        _point(store.root, promoted[-1].name)
        return promoted[-1]


def promote(store: Store, entry: ChampionChange) -> bool:
    """Make an artifact the champion; False if it already is.

    Args:
        store: Contains the artifact; the caller holds its `in_use` lock.
        entry: Without `when` and `beaten`.

    Raises:
        PipelineError: The artifact is incomplete.
    """
    _see_whole(store, entry, "Run `finetune run` with the same settings.")
    with _alone(store):
        entries = history(store.root)
        promoted = standing(entries)
        if promoted and promoted[-1].key == entry.key:
            _point(store.root, promoted[-1].name)
            return False
        beaten = promoted[-1].key if promoted else ""
        _write(store.root, [*entries, dataclasses.replace(entry, when=_now(), beaten=beaten)])
        _point(store.root, entry.name)
        return True


def rollback(store: Store, because: str = "") -> tuple[ChampionChange, ChampionChange]:
    """Undo the last promotion.

    Args:
        store: The caller holds its `in_use` lock.
        because: Recorded.

    Returns: The previous champion and the new one.

    Raises:
        PipelineError: There is no earlier promotion, or its artifact is incomplete.
    """
    with _alone(store):
        entries = history(store.root)
        promoted = standing(entries)
        if len(promoted) < 2:
            raise PipelineError(
                f"no earlier promotion to roll back to: {len(promoted)} promoted, 2 needed",
                "Promote another model first: finetune promote.",
            )
        last, before = promoted[-1], promoted[-2]
        made = " ".join(["--profile", before.profile, *(f"--set {o}" for o in before.overrides)])
        _see_whole(store, before, f"Produce it again: finetune run {made}")
        change = ChampionChange(
            ROLLBACK, before.stage, before.key, because, _now(), beaten=last.key
        )
        _write(store.root, [*entries, change])
        _point(store.root, before.name)
        return last, before


def pinned(root: Path, last: int = KEPT) -> frozenset[str]:
    """Keys of all artifacts from which the champion and the promotions before it were produced.

    Args:
        root: The artifacts folder.
        last: Number of promotions, the champion included.
    """
    promoted = standing(history(root))[-last:]
    return frozenset(key for entry in promoted for key in (entry.key, *entry.chain.values()))


def _alone(store: Store) -> AbstractContextManager[None]:
    return locked(store.root / ".locks" / "champion")


def _see_whole(store: Store, entry: ChampionChange, remedy: str) -> None:
    found = store.find(entry.stage, entry.key)
    if found.manifest is None:
        problem = " ".join(found.problem) if found.problem else "it does not exist"
        raise PipelineError(f"the artifact {entry.name} is incomplete ({problem})", remedy)


def _point(root: Path, target: str) -> None:
    """Point the link at `target`; relative, so that `root` can be moved."""
    link, temporary = root / LINK, root / f".{LINK}.new"
    if link.is_symlink() and str(link.readlink()) == target:
        return
    if link.exists() and not link.is_symlink():
        raise PipelineError(f"{link} exists and is no symbolic link", "Move it elsewhere.")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    flush(root)


def _write(root: Path, entries: Sequence[ChampionChange]) -> None:
    plain = [dataclasses.asdict(entry) for entry in entries]
    write_text(root / HISTORY, json.dumps(plain, indent=1, ensure_ascii=False))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
