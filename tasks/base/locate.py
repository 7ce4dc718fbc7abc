"""Settings -> where the base model lies. Standard library only: `plan` runs this."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from tasks.core.errors import PipelineError
from tasks.core.system.home import resolve_path
from tasks.core.system.hub_pins import pinned_commit

PACKAGE = "package:"


@dataclass(frozen=True)
class Origin:
    """Where a base model is taken from.

    Attributes:
        name: How documents call it: "owner/model@commit", "local folder", "local GGUF file" or
            "package NAME: FILE". No path, so that moving a folder changes no output.
        folder: Model folder on this machine, or None.
        gguf: GGUF file on this machine, or None.
        hub: (id, commit) on the hub, or None.
        notes: Licence files and metadata of the package that holds the GGUF file.
    """

    name: str
    folder: Path | None = None
    gguf: Path | None = None
    hub: tuple[str, str] | None = None
    notes: tuple[Path, ...] = ()


def locate(hub_id: str, revision: str | None, path: str | None, gguf: str | None) -> Origin:
    """Find the base model that the settings name.

    Raises:
        PipelineError: It isn't there, or no commit of the hub's model can be pinned.
    """
    if path:
        folder = resolve_path(path)
        if not folder.is_dir():
            raise PipelineError(
                f"base.path: no folder at {folder}",
                "Give the folder that holds config.json, the safetensors and the tokenizer.",
            )
        return Origin("local folder", folder=folder)
    if gguf and gguf.startswith(PACKAGE):
        return _in_package(gguf.removeprefix(PACKAGE))
    if gguf:
        return Origin("local GGUF file", gguf=_checked(resolve_path(gguf), gguf))
    commit = revision or pinned_commit(
        hub_id, "models", "base.revision", "name a local model with base.path or base.gguf"
    )
    return Origin(f"{hub_id}@{commit}", hub=(hub_id, commit))


def _in_package(reference: str) -> Origin:
    """A GGUF file inside an installed package, found without importing the package."""
    name, _, inner = reference.partition("/")
    path = PurePosixPath(inner)
    if not name.isidentifier() or not inner or path.is_absolute() or ".." in path.parts:
        raise PipelineError(
            f"base.gguf: {PACKAGE}{reference} is not {PACKAGE}NAME/FILE",
            "Write the import name of the package and a file inside it.",
        )
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise PipelineError(
            f"base.gguf: package {name} is not installed",
            "Install the package that holds the model into this environment, or give a .gguf file.",
        )
    module = Path(next(iter(spec.submodule_search_locations)))
    file = _checked(module / inner, f"{PACKAGE}{reference}")
    return Origin(f"package {name}: {inner}", gguf=file, notes=_package_notes(module))


def _checked(file: Path, setting: str) -> Path:
    """The file, if it is a GGUF file."""
    if not file.is_file():
        raise PipelineError(f"base.gguf: no file at {file}", f"Check base.gguf ({setting}).")
    with file.open("rb") as stream:
        magic = stream.read(4)
    if magic != b"GGUF":
        raise PipelineError(
            f"base.gguf: {file} begins with {magic!r}, a GGUF file with b'GGUF'",
            "Download the file again; a pointer of git-lfs is not the file.",
        )
    return file


def _package_notes(module: Path) -> tuple[Path, ...]:
    """METADATA and licence files of the distribution that shares the package's name."""
    found: list[Path] = []
    for info in sorted(module.parent.glob(f"{module.name}-*.dist-info")):
        for folder in (info, info / "licenses"):
            found += [p for p in sorted(folder.glob("*")) if is_licence(p.name) and p.is_file()]
        found += [p for p in (info / "METADATA",) if p.is_file()]
    return tuple(found)


def is_licence(name: str) -> bool:
    """Whether a file's name is that of a licence or a notice."""
    return name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))
