"""What identifies the base model in the key: a pinned commit, or the content of its files.

Standard library only: `plan` runs this.
"""

from collections.abc import Callable
from pathlib import Path

from tasks.base.locate import locate
from tasks.base.model_folder import model_files
from tasks.core.settings.config import View


def sources(config: View, digest_of: Callable[[Path], str]) -> dict[str, str]:
    """{file name: digest} of a local model, {"hub": "id@commit"} of one on the hub.

    Raises:
        PipelineError: The model isn't there.
    """
    base = config.base
    origin = locate(base.hub_id, base.revision, base.path, base.gguf)
    if origin.hub:
        return {"hub": origin.name}
    if origin.gguf:
        notes = {f"package/{note.name}": digest_of(note) for note in origin.notes}
        return {"gguf": digest_of(origin.gguf), **notes}
    assert origin.folder is not None  # the only kind left
    return {
        file.name: digest_of(file) for file in model_files(origin.folder, base.trust_remote_code)
    }
