"""The project's home folder with artifacts/ and data/: FINETUNE_HOME, or else the repository.

Not the current directory, because a Prefect worker runs flows in a temporary folder. Only a program
that was installed from a wheel has no repository; its home is the folder in which it is started,
and `keep_home` lets the processes that it starts use the same.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
IS_CHECKOUT = (REPOSITORY / "pyproject.toml").is_file()  # else it is site-packages
# the folder of prefect.yaml, which the wheel has in the package
DEPLOYMENTS = REPOSITORY if IS_CHECKOUT else REPOSITORY / "flows"
VARIABLE = "FINETUNE_HOME"


def home() -> Path:
    """The folder of artifacts/ and data/."""
    default = REPOSITORY if IS_CHECKOUT else Path.cwd()
    return Path(os.environ.get(VARIABLE) or default).expanduser().resolve()


def keep_home() -> None:
    """Fix the home of an installed program for the processes that it starts."""
    if not IS_CHECKOUT:
        os.environ[VARIABLE] = str(home())


def resolve_path(path: str) -> Path:
    """A path from a profile; relative paths are relative to `home()`."""
    expanded = Path(path).expanduser()
    return expanded if expanded.is_absolute() else home() / expanded


def short_path(path: str) -> str:
    """A path for the user: relative to the working folder or to `home()`, or below ~."""
    for folder, prefix in ((Path.cwd(), ""), (home(), ""), (Path.home(), "~/")):
        if path.startswith(f"{folder}/") and folder != Path("/"):
            return prefix + path[len(f"{folder}/") :]
    return path
