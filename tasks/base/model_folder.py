"""A model folder as transformers saves it: which files count, whether they are whole, taking them.

Standard library only: `plan` digests the files that `model_files` lists.
"""

import json
import os
import shutil
from math import prod
from pathlib import Path
from typing import Any

from tasks.base.locate import is_licence
from tasks.core.errors import PipelineError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
TOKENIZER_CONTENT = ("tokenizer.json", "vocab.json", "tokenizer.model")
CONFIG_FILES = ("config.json", "generation_config.json")


def model_files(folder: Path, code: bool = False) -> list[Path]:
    """Files of a model folder that the stage reads, sorted by name; with its Python files or not.

    Raises:
        PipelineError: No config.json, no tokenizer, no safetensors, or a shard is missing.
    """
    names = {entry.name for entry in folder.iterdir() if entry.is_file()}
    if "config.json" not in names:
        raise PipelineError(
            f"{folder} has no config.json", "Give a model folder as transformers saves it."
        )
    if not names.intersection(TOKENIZER_CONTENT):
        raise PipelineError(
            f"{folder} has no tokenizer (none of {', '.join(TOKENIZER_CONTENT)})",
            "Put tokenizer.json and tokenizer_config.json beside config.json.",
        )
    kept = names.intersection((*TOKENIZER_FILES, *CONFIG_FILES, "README.md"))
    kept |= {name for name in names if is_licence(name)}
    kept |= {file.name for file in weight_files(folder)}
    kept |= {name for name in names if code and name.endswith(".py")}
    return [folder / name for name in sorted(kept)]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a model folder, with the index where there is one.

    Raises:
        PipelineError: None there, or the index names a shard that isn't.
    """
    if (folder / INDEX).is_file():
        shards = sorted(set(_weight_map(folder / INDEX).values()))
        if outside := [name for name in shards if Path(name).name != name]:
            raise PipelineError(
                f"{folder / INDEX} names a shard outside of its folder: {outside[0]}",
                "Download the index again, from somebody you trust.",
            )
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing:
            raise PipelineError(
                f"{folder}: {len(missing)} of {len(shards)} shards named by {INDEX} are missing, "
                f"first {missing[0]}",
                "Copy or download the missing files.",
            )
        return [folder / INDEX, *(folder / name for name in shards)]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    pickles = sorted(p.name for p in folder.glob("*.bin"))
    if pickles:
        raise PipelineError(
            f"{folder} has its weights only as {pickles[0]}, which can run code when opened",
            "Use a revision with safetensors, or convert it where you trust it: load it with "
            "transformers and call save_pretrained.",
        )
    raise PipelineError(
        f"{folder} has neither {SINGLE} nor {INDEX}", "Give a folder with the model's weights."
    )


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> shard."""
    content = read_json(index).get("weight_map")
    if not isinstance(content, dict) or not content:
        raise PipelineError(f"{index} names no shards", "Download the index again.")
    return content


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        PipelineError: It is something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PipelineError(f"{file} is not JSON: {error}", "Download the file again.") from error
    if not isinstance(content, dict):
        raise PipelineError(f"{file} is no JSON object", "Download the file again.")
    return content


def count_parameters(file: Path) -> int:
    """Numbers in a safetensors file, from its header; the file must be as long as the header says.

    Raises:
        PipelineError: The file is cut off, or is no safetensors (a git-lfs pointer, a web page).
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= size - 8:
            raise _damaged(file, f"{size} bytes without a whole header")
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            end = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
            parameters: int = sum(prod(entry["shape"]) for entry in tensors)
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(file, "its header can't be read") from error
    if end != size:
        raise _damaged(file, f"it has {size} bytes, its header says {end}")
    return parameters


def _damaged(file: Path, what: str) -> PipelineError:
    return PipelineError(
        f"{file} is no whole safetensors file: {what}",
        "Download it again (with git-lfs: `git lfs pull`).",
    )


def link(source: Path, target: Path) -> None:
    """Take over a large file without a second copy; a copy where the file system can't link."""
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
