"""What the stage reads from outside the store: the data of the benchmarks, keyed by content.

The standard library alone, because `finetune plan` calls it every time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import PipelineError
from tasks.filtering.benchmarks import files_of

if TYPE_CHECKING:
    from tasks.core.settings.config import View


def sources(config: "View", digest_of: Callable[[Path], str]) -> dict[str, str]:
    """Digest of each benchmark's data by its name; "absent" where a known one is not installed.

    Raises:
        PipelineError: A file of the settings is not there.
    """
    settings = config.filter.decontamination
    digests = {}
    files = files_of(settings.benchmarks, settings.files, config.evaluate.sets)
    for name, path in files.items():
        try:
            digests[name] = digest_of(path) if path else "absent"
        except OSError as error:
            raise PipelineError(
                f"{name} can't be read: {error.strerror}",
                "Check the path in filter.decontamination.files or evaluate.sets.",
            ) from error
    return digests
