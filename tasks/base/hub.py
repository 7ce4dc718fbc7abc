"""Downloads a pinned snapshot from the Hugging Face hub, through the hub's own cache.

A snapshot that is completely cached is not downloaded again and needs no network.
"""

from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.auto import tqdm  # type: ignore[import-untyped]  # ships no types

from tasks.base.model_folder import CONFIG_FILES, TOKENIZER_FILES
from tasks.core.errors import PipelineError
from tasks.core.progress import report, say
from tasks.core.system.retry import retried

PATTERNS = [
    *TOKENIZER_FILES,
    *CONFIG_FILES,
    "model*.safetensors",
    "model.safetensors.index.json",
    "README.md",
    "LICEN[SC]E*",
    "NOTICE*",
]


def download(hub_id: str, revision: str, code: bool = False) -> Path:
    """The folder of a snapshot, after downloading what is not cached; Python files if `code`.

    Raises:
        PipelineError: The hub is unreachable, has no such snapshot, or requires a license to be
            accepted.
    """
    say(f"downloading {hub_id} at {revision[:12]} to the hub's cache")
    local = "Or download the model elsewhere and set base.path to its folder."
    try:
        fetch = partial(
            snapshot_download,
            hub_id,
            revision=revision,
            allow_patterns=[*PATTERNS, *(["*.py"] if code else [])],
            tqdm_class=_reporting_bar(),
        )
        return Path(retried(fetch, hub_id))
    except GatedRepoError as error:
        raise PipelineError(
            f"{hub_id} has a license that you have to accept first",
            f"Accept it at https://huggingface.co/{hub_id} and run `hf auth login`. {local}",
        ) from error
    except RevisionNotFoundError as error:
        raise PipelineError(
            f"{hub_id} has no commit {revision}",
            f"Copy one from https://huggingface.co/{hub_id}/commits/main into base.revision.",
        ) from error
    except RepositoryNotFoundError as error:
        raise PipelineError(
            f"the hub has no model {hub_id}, or it is private",
            f"Check base.hub_id; for a private model run `hf auth login`. {local}",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, ConnectionError) as error:
        raise PipelineError(
            f"{hub_id} at {revision[:12]} is not in the cache, and the hub can't be reached",
            f"Check the network. {local}",
        ) from error


def _reporting_bar() -> type[Any]:
    """A tqdm class that draws nothing and reports bytes to the progress sinks of this run."""
    context = copy_context()  # downloads run in threads, which do not inherit the progress sinks

    class Bar(tqdm):  # type: ignore[misc]  # ships no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts_bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self._counts_bytes and self.total:
                context.copy().run(report, "download", self.n, self.total, "bytes")

    return Bar
