"""Profiles by name: the YAML files in flows/profiles/, or a file of the user; and the default
profile of a command."""

import difflib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.core.artifacts import runs
from tasks.core.errors import PipelineError, RecordError
from tasks.core.system.home import home, short_path

FOLDER = Path(__file__).parent / "profiles"
DEFAULT = "stable_code_3b_10gb"
VARIABLE = "FINETUNE_PROFILE"
OWN_FILE = "finetune.yaml"  # in the working folder; `finetune init` writes it


class Default(NamedTuple):
    """The default profile of a command.

    Attributes:
        profile: Name, or absolute path of a file.
        overrides: "section.field=value" each: those of the last run, if it is repeated.
        origin: Where the profile comes from, for the user.
    """

    profile: str
    overrides: tuple[str, ...]
    origin: str

    def __str__(self) -> str:
        changes = "".join(f" --set {override}" for override in self.overrides)
        return f"profile {short_path(self.profile)}{changes} ({self.origin})"


def default() -> Default:
    """The profile that FINETUNE_PROFILE names, else finetune.yaml in the working folder, else that
    of the last run with its overrides, else the built-in default."""
    if named := os.environ.get(VARIABLE):
        return Default(absolute(named), (), VARIABLE)
    if Path(OWN_FILE).is_file():
        return Default(absolute(OWN_FILE), (), "in this folder")
    if record := last_run():
        return Default(record.profile, record.overrides, "of the last run")
    return Default(DEFAULT, (), f"the default; `finetune init` writes {OWN_FILE} for this folder")


def last_run() -> runs.RunRecord | None:
    """The record of the last run; None if there is none that can be read."""
    root = home() / "artifacts"
    try:
        return next((runs.load(root, run) for run in runs.ids(root)[-1:]), None)
    except RecordError:
        return None


def options(profile: str, overrides: Sequence[str]) -> str:
    """The options with which a command in this folder uses these settings, such as
    " --set train.max_steps=2"; "" if it uses them without."""
    now = default()
    if (now.profile, now.overrides) == (profile, tuple(overrides)):
        return ""
    needs_profile = now.profile != profile or bool(now.overrides)
    given = f" --profile {shlex.quote(profile)}" if needs_profile else ""
    return given + "".join(f" --set {shlex.quote(override)}" for override in overrides)


def absolute(profile: str) -> str:
    """A profile as later commands find it from any folder: of a file, its absolute path."""
    if profile in names() or not profile.endswith((".yaml", ".yml")):
        return profile
    return str(Path(profile).expanduser().absolute())


def names() -> list[str]:
    """Names of the profiles that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def locate(profile: str) -> Path:
    """The file of a profile given by name or by path.

    Raises:
        PipelineError: There is no such profile; the remedy suggests the closest name.
    """
    if profile in names():
        return FOLDER / f"{profile}.yaml"
    if profile.endswith((".yaml", ".yml")):
        path = Path(profile).expanduser()
        if path.is_file():
            return path.resolve()
        raise PipelineError(
            f"profile file {profile} does not exist",
            "Check the path, or name one that `finetune profiles` lists.",
        )
    near = difflib.get_close_matches(profile, names(), n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise PipelineError(
        f"there is no profile {profile!r}",
        f"{hint}Profiles: {', '.join(names())}; or give a .yaml file.",
    )


def headline(name: str) -> str:
    """The first comment line of a profile: its purpose."""
    with locate(name).open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()
