"""Resolves the settings to the source of the base model: a folder, a GGUF file or a hub snapshot.

Standard library only: `finetune plan` runs this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from tasks.base.model_folder import model_files
from tasks.core.errors import PipelineError
from tasks.core.models.model_folder import is_license
from tasks.core.settings.config import View
from tasks.core.system.home import resolve_path
from tasks.core.system.hub_pins import MODEL_SOURCE, pinned_commit

PACKAGE = "package:"


@dataclass(frozen=True)
class ModelSource:
    """Source of a base model.

    Attributes:
        name: In documents: "owner/model@commit", "local folder", "local GGUF file" or
            "package NAME: FILE". No path, so that moving a folder changes no output.
        folder: Model folder on this machine, or None.
        gguf: GGUF file on this machine, or None.
        hub: (id, commit) on the hub, or None.
        notes: License files and metadata of the package that contains the GGUF file.
    """

    name: str
    folder: Path | None = None
    gguf: Path | None = None
    hub: tuple[str, str] | None = None
    notes: tuple[Path, ...] = ()


def locate(hub_id: str, revision: str | None, path: str | None, gguf: str | None) -> ModelSource:
    """Find the base model that the settings select.

    Raises:
        PipelineError: It does not exist, or no commit of the hub's model can be pinned.
    """
    if path:
        folder = resolve_path(path)
        if not folder.is_dir():
            raise PipelineError(
                f"base.path: no folder at {folder}",
                "Set it to a folder with config.json, the safetensors and the tokenizer.",
            )
        return ModelSource("local folder", folder=folder)
    if gguf and gguf.startswith(PACKAGE):
        return _in_package(gguf.removeprefix(PACKAGE))
    if gguf:
        return ModelSource("local GGUF file", gguf=_checked_gguf(resolve_path(gguf), gguf))
    commit = revision or pinned_commit(
        hub_id, "models", "base.revision", "name a local model with base.path or base.gguf"
    )
    return ModelSource(f"{hub_id}@{commit}", hub=(hub_id, commit))


def _in_package(reference: str) -> ModelSource:
    """A GGUF file in an installed package, found without importing the package."""
    name, _, inner = reference.partition("/")
    path = PurePosixPath(inner)
    if not name.isidentifier() or not inner or path.is_absolute() or ".." in path.parts:
        raise PipelineError(
            f"base.gguf: {PACKAGE}{reference} is not {PACKAGE}NAME/FILE",
            "Set it to the import name of a package and the path of a file in it.",
        )
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise PipelineError(
            f"base.gguf: package {name} is not installed",
            "Install the package into this environment, or set base.gguf to a .gguf file.",
        )
    module = Path(next(iter(spec.submodule_search_locations)))
    file = _checked_gguf(module / inner, f"{PACKAGE}{reference}")
    return ModelSource(f"package {name}: {inner}", gguf=file, notes=_package_notes(module))


def _checked_gguf(file: Path, setting: str) -> Path:
    """The file, after checking that it is a GGUF file."""
    if not file.is_file():
        raise PipelineError(f"base.gguf: no file at {file}", f"Check base.gguf ({setting}).")
    with file.open("rb") as stream:
        magic = stream.read(4)
    if magic != b"GGUF":
        raise PipelineError(
            f"base.gguf: {file} begins with {magic!r} instead of b'GGUF'",
            "Download the file again (with git-lfs: `git lfs pull`).",
        )
    return file


def _package_notes(module: Path) -> tuple[Path, ...]:
    """METADATA and license files of the distribution with the package's name."""
    found: list[Path] = []
    for info in sorted(module.parent.glob(f"{module.name}-*.dist-info")):
        for folder in (info, info / "licenses"):
            found += [p for p in sorted(folder.glob("*")) if is_license(p.name) and p.is_file()]
        found += [p for p in (info / "METADATA",) if p.is_file()]
    return tuple(found)


def key_sources(config: View, digest_of: Callable[[Path], str]) -> dict[str, str]:
    """What identifies the base model in the cache key.

    {file name: digest} of a local model, {"hub": "id@commit"} of one on the hub.

    Raises:
        PipelineError: The model does not exist.
    """
    base = config.base
    source = locate(base.hub_id, base.revision, base.path, base.gguf)
    if source.hub:
        return {MODEL_SOURCE: source.name}
    if source.gguf:
        notes = {f"package/{note.name}": digest_of(note) for note in source.notes}
        return {"gguf": digest_of(source.gguf), **notes}
    assert source.folder is not None  # the only remaining case
    return {
        file.name: digest_of(file) for file in model_files(source.folder, base.trust_remote_code)
    }
