"""Pinned commits of models and data sets on the hub: data/pins.json, like a dependency lock file.

A revision in a profile takes precedence. Without one, the hub is queried once for the commit of the
main branch, and every later run uses that commit until its line is removed from the file. Where
there is no pin and no hub, the commit of the last artifact is used: what was made from it can be
used offline. Only the standard library is used, as `plan` calls this.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from tasks.core.errors import PipelineError
from tasks.core.system.atomic_write import write_text
from tasks.core.system.home import home

ENDPOINT = "https://huggingface.co"
TIMEOUT_S = 10
COMMIT_DIGITS = 40
MODEL_SOURCE = "hub"  # in the sources of an artifact, what names the commit of a model
Kind = Literal["models", "datasets"]


def pinned_commit(hub_id: str, kind: Kind, setting: str, instead: str) -> str:
    """The pinned commit of a model or data set, 40 hex digits; the first call pins it.

    Args:
        hub_id: "owner/name".
        kind: In the file, a data set is called "datasets/owner/name".
        setting: The setting that takes a commit, for the remedy.
        instead: What else the user can do, for the remedy.

    Raises:
        PipelineError: There is no pin yet, the hub did not answer, and no artifact names a commit.
    """
    file = home() / "data" / "pins.json"
    pins = _read(file)
    name = hub_id if kind == "models" else f"{kind}/{hub_id}"
    if name not in pins:
        try:
            pins[name] = _main_commit(hub_id, kind, setting, instead)
        except PipelineError:
            if used := _last_used(hub_id, kind):
                return used  # not pinned: the next run with a hub asks it
            raise
        write_text(file, json.dumps(pins, indent=2, sort_keys=True) + "\n")
    return pins[name]


def _read(file: Path) -> dict[str, str]:
    try:
        pins = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise PipelineError(f"{file} is not JSON", "Correct or delete it.") from error
    if not isinstance(pins, dict):
        raise PipelineError(
            f"{file} is a JSON {type(pins).__name__}, not an object of names and commits",
            "Correct or delete it.",
        )
    return {str(name): str(commit) for name, commit in pins.items()}


def _last_used(hub_id: str, kind: Kind) -> str:
    """The commit that the newest artifact was made from; "" if there is none."""
    found = []
    for path in (home() / "artifacts").glob("*/*/manifest.json"):
        with suppress(OSError, ValueError, KeyError, AttributeError):
            for name, value in json.loads(path.read_bytes())["parts"]["sources"].items():
                of, _, commit = str(value).partition("@")
                if of == hub_id and (name == MODEL_SOURCE) == (kind == "models"):
                    found.append((path.stat().st_mtime_ns, commit))
    return max(found, default=(0, ""))[1]


def _main_commit(hub_id: str, kind: Kind, setting: str, instead: str) -> str:
    """The commit that the main branch points to now."""
    import urllib.error  # 8 ms that a plan with pins or local models does not need
    import urllib.request

    endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")
    page = f"{ENDPOINT}/{'' if kind == 'models' else f'{kind}/'}{hub_id}/commits/main"
    request = urllib.request.Request(f"{endpoint}/api/{kind}/{hub_id}/revision/main")
    if token := os.environ.get("HF_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            commit = str(json.load(answer).get("sha", ""))
    except (OSError, ValueError) as error:
        code = f" (HTTP {error.code})" if isinstance(error, urllib.error.HTTPError) else ""
        raise PipelineError(
            f"no commit of {hub_id} is pinned, and the hub does not return one{code}",
            f"Set {setting} to a commit from {page}, or {instead}.",
        ) from error
    if len(commit) != COMMIT_DIGITS:
        raise PipelineError(
            f"the hub's response for {hub_id} has no commit ({commit!r})",
            f"Set {setting} to a commit from {page}.",
        )
    return commit
