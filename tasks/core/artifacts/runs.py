"""Records of runs: which artifacts each run used. Read by `finetune diff` and `finetune gc`.

One small JSON file per run below artifacts/.runs/, named by its start (UTC), so that names sort by
time. It is rewritten before and after each stage: the record of a killed run names the artifacts
that it had and the one in progress. An empty file next to it pins a run.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.cache.store import KEY_DIGITS
from tasks.core.errors import PipelineError, RecordError
from tasks.core.system.atomic_write import write_text

FOLDER = ".runs"
SUFFIX = ".json"
PIN = ".pin"


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        id: Start time, number and process, such as "20260102T030405-0001-4711".
        keys: Key of the artifact that the run produced or found, by stage.
        making: Work folder of the stage in progress ("train-0123456789ab"); "" between stages.
            Unfinished work there is kept as long as the run.
        ended: Whether it finished; a killed run did not.
    """

    id: str
    profile: str
    overrides: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    flow_run: str = ""
    making: str = ""
    ended: bool = True

    def with_key(self, stage: str, key: str) -> "RunRecord":
        """The record with one more artifact."""
        return dataclasses.replace(self, keys={**self.keys, stage: key}, making="")

    def with_work(self, stage: str, key: str) -> "RunRecord":
        """The record at the start of a stage."""
        return dataclasses.replace(self, making=f"{stage}-{key[:KEY_DIGITS]}")

    def write(self, root: Path) -> None:
        """Write the record below an artifacts folder, atomically."""
        path = root / FOLDER / f"{self.id}{SUFFIX}"
        # not durable: it is written twice for each stage, and a power cut ends the run anyway
        write_text(path, json.dumps(dataclasses.asdict(self), indent=1), durable=False)


def new_id(root: Path) -> str:
    """An id for a run that starts now in this process; it sorts after all recorded ids.

    The order must hold if the clock was set back: it defines "the last run" and what `gc` keeps.
    """
    known = [name.partition("-")[0] for name in ids(root)]
    start = max([f"{datetime.now(UTC):%Y%m%dT%H%M%S}", *known[-1:]])
    return f"{start}-{known.count(start) + 1:04}-{os.getpid()}"


def ids(root: Path) -> list[str]:
    """Ids of all recorded runs, oldest first."""
    try:
        with os.scandir(root / FOLDER) as entries:
            return sorted(e.name[: -len(SUFFIX)] for e in entries if e.name.endswith(SUFFIX))
    except (FileNotFoundError, NotADirectoryError):  # a run reports the file that is there instead
        return []


def read(root: Path, run: str) -> RunRecord:
    """A run by id, by a prefix of one, or by position from the end ("-1" is the last).

    Raises:
        PipelineError: There is no such run, or several.
    """
    known = ids(root)
    if run.startswith("-") and run[1:].isdigit():
        position = int(run)
        found = [known[position]] if 0 < -position <= len(known) else []
    elif run in known:
        found = [run]  # may also be a prefix of ids with longer process numbers
    else:
        found = [name for name in known if name.startswith(run)]
    if not known:
        raise PipelineError("no run is recorded", "Start one with: finetune run")
    if len(found) != 1:
        what = f"{len(found)} runs match" if found else "no run matches"
        raise PipelineError(
            f"{what} {run!r}; {len(known)} recorded",
            f"Give one of {', '.join(known[-3:])}, or -1 for the last.",
        )
    return load(root, found[0])


def load(root: Path, run: str) -> RunRecord:
    """The run with exactly this id.

    Raises:
        RecordError: Its record cannot be read.
    """
    path = root / FOLDER / f"{run}{SUFFIX}"
    try:
        raw = json.loads(path.read_bytes())
        known = {name: raw[name] for name in RunRecord.__dataclass_fields__ if name in raw}
        return RunRecord(**{**known, "overrides": tuple(raw["overrides"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path} is not a valid run record: {error}",
            "Remove it; `finetune gc` then no longer keeps the artifacts of that run.",
        ) from error


def pin(root: Path, run: str, undo: bool = False) -> None:
    """Keep the artifacts of a run until `undo`."""
    mark = (root / FOLDER / run).with_suffix(PIN)
    if undo:
        mark.unlink(missing_ok=True)
    else:
        mark.touch()


def pinned(root: Path) -> list[str]:
    """Ids of the pinned runs."""
    return sorted(path.stem for path in (root / FOLDER).glob(f"*{PIN}"))


def since(root: Path, days: float) -> list[str]:
    """Ids of the runs that started within the last `days` days."""
    now = datetime.now(UTC)
    recent = []
    for name in ids(root):
        try:
            start = datetime.strptime(name.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            continue
        if (now - start).total_seconds() <= days * 86_400:
            recent.append(name)
    return recent
