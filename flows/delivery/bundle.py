"""A bundle: files by which other programs load a model, as a folder, an archive or a repository.

The merged model is at the top, where transformers and vLLM look for it; GGUF files with their
Modelfiles are in gguf/, the adapter is in adapter/. README.md is the model card with the commands.
"""

import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from flows.delivery.delivered_model import DeliveredModel
from tasks.core.errors import PipelineError

CARD = "README.md"
ARCHIVES = (".tar", ".tar.gz", ".tgz")
Files = Mapping[str, Path | bytes]  # path in the bundle -> its source, or its content


def bundle_files(model: DeliveredModel, title: str) -> Files:
    """The files of a bundle.

    Args:
        model: The model.
        title: Name of the model for other programs.

    Raises:
        PipelineError: It is a GGUF file without a model.
    """
    if model.folder is None:
        raise PipelineError(
            f"{model.name} is a GGUF file, not a merged model",
            "Name the folder of a merged model: --model FOLDER.",
        )
    files: dict[str, Path | bytes] = dict(_below(model.folder, ""))
    for file in model.gguf.values():
        files[f"gguf/{file.name}"] = file
        if (recipe := file.with_suffix(".Modelfile")).is_file():
            files[f"gguf/{recipe.name}"] = recipe
    if model.adapter is not None:
        files |= _below(model.adapter, "adapter/")
    card = model.folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# {title}\n"
    files[CARD] = f"{text}\n{_commands(model, title)}".encode()
    return files


def write_bundle(files: Files, target: Path) -> None:
    """Write a bundle as a folder, or as an archive if `target` is named like one.

    Raises:
        PipelineError: The target exists.
    """
    if target.exists():
        raise PipelineError(f"{target} exists", "Remove it, or name another target.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.part")
    try:
        if target.name.endswith(ARCHIVES):
            _write_archive(files, temporary, target.name)
        else:
            shutil.rmtree(temporary, ignore_errors=True)
            _write_folder(files, temporary)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
        raise


def _write_folder(files: Files, folder: Path) -> None:
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path):
            shutil.copyfile(source, path)
        else:
            path.write_bytes(source)


def _write_archive(files: Files, path: Path, name: str) -> None:
    top = name.partition(".t")[0]
    with tarfile.open(path, "w" if name.endswith(".tar") else "w:gz") as archive:
        for inner, source in files.items():
            if isinstance(source, Path):
                archive.add(source, f"{top}/{inner}")
            else:
                entry = tarfile.TarInfo(f"{top}/{inner}")
                entry.size, entry.mode = len(source), 0o644
                archive.addfile(entry, io.BytesIO(source))


def _below(folder: Path, prefix: str) -> dict[str, Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {f"{prefix}{path.relative_to(folder).as_posix()}": path for path in files}


def _commands(model: DeliveredModel, title: str) -> str:
    """How each program loads the bundle, from its folder."""
    parts = [
        "## Programs\n\nFrom the folder of this file:\n",
        f"vLLM:\n\n```sh\nvllm serve . --served-model-name {title}\n```\n",
    ]
    for file in model.gguf.values():
        parts.append(f"llama.cpp:\n\n```sh\nllama-server -m gguf/{file.name} --jinja\n```\n")
        if file.with_suffix(".Modelfile").is_file():
            recipe = file.with_suffix(".Modelfile").name
            parts.append(
                f"Ollama:\n\n```sh\nollama create {title} -f gguf/{recipe}\n"
                f"ollama run {title}\n```\n"
            )
    if not model.gguf:
        parts.append("There are no GGUF files, because the setting `merge.gguf` was empty.\n")
    if model.adapter is not None:
        parts.append("`adapter/` is the LoRA adapter alone, for PEFT.\n")
    return "\n".join(parts)
