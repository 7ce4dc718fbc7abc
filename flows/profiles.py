"""Profiles by name: the YAML files in flows/profiles/, or a file of the user."""

import difflib
from pathlib import Path

from tasks.core.errors import PipelineError

FOLDER = Path(__file__).parent / "profiles"
DEFAULT = "stable_code_3b_10gb"


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
