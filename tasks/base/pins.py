"""Commits of hub models, pinned at first use: data/pins.json, like a lock file of dependencies.

`base.revision` in a profile comes first. Without one, the hub is asked once for the commit of the
main branch, and every later run uses that commit until the line in the file is removed. Standard
library only: `plan` runs this.
"""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.core.home import home

ENDPOINT = "https://huggingface.co"
TIMEOUT_S = 10
COMMIT_DIGITS = 40


def pinned_commit(hub_id: str) -> str:
    """The pinned commit of a hub model, 40 hex digits; asked for and written down the first time.

    Raises:
        PipelineError: Not pinned yet, and the hub can't be asked.
    """
    file = home() / "data" / "pins.json"
    pins = _read(file)
    if hub_id not in pins:
        pins[hub_id] = _main_commit(hub_id)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(pins, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(file)
    return pins[hub_id]


def _read(file: Path) -> dict[str, str]:
    try:
        pins = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise PipelineError(f"{file} is not JSON", "Mend or delete it.") from error
    return {str(name): str(commit) for name, commit in pins.items()}


def _main_commit(hub_id: str) -> str:
    """The commit that the main branch of a hub model points to now."""
    endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")
    request = urllib.request.Request(f"{endpoint}/api/models/{hub_id}/revision/main")
    if token := os.environ.get("HF_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            commit = str(json.load(answer).get("sha", ""))
    except (OSError, ValueError) as error:
        code = f" (HTTP {error.code})" if isinstance(error, urllib.error.HTTPError) else ""
        raise PipelineError(
            f"no commit of {hub_id} is pinned, and the hub can't be asked for one{code}",
            f"Set base.revision to a commit from {ENDPOINT}/{hub_id}/commits/main, or name a local "
            "model with base.path or base.gguf.",
        ) from error
    if len(commit) != COMMIT_DIGITS:
        raise PipelineError(
            f"the hub's answer for {hub_id} names no commit ({commit!r})",
            f"Set base.revision to a commit from {ENDPOINT}/{hub_id}/commits/main.",
        )
    return commit
