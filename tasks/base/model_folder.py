"""A base model's folder: which files the stage reads, and whether they are complete.

Standard library only: `finetune plan` digests the files that `model_files` lists.
"""

import json
from math import prod
from pathlib import Path
from typing import Any

from tasks.core.errors import PipelineError
from tasks.core.models.model_folder import INDEX_FILE, WEIGHTS_FILE, is_license

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
    """Files of a model folder that the stage reads, sorted by name; Python files if `code`.

    Raises:
        PipelineError: No config.json, no tokenizer, no safetensors, or a shard is missing.
    """
    names = {entry.name for entry in folder.iterdir() if entry.is_file()}
    if "config.json" not in names:
        raise PipelineError(
            f"{folder} has no config.json", "Use a model folder as transformers saves it."
        )
    if not names.intersection(TOKENIZER_CONTENT):
        raise PipelineError(
            f"{folder} has no tokenizer (none of {', '.join(TOKENIZER_CONTENT)})",
            "Put tokenizer.json and tokenizer_config.json beside config.json.",
        )
    kept = names.intersection((*TOKENIZER_FILES, *CONFIG_FILES, "README.md"))
    kept |= {name for name in names if is_license(name)}
    kept |= {file.name for file in weight_files(folder)}
    kept |= {name for name in names if code and name.endswith(".py")}
    return [folder / name for name in sorted(kept)]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a model folder, and the index if there is one.

    Raises:
        PipelineError: There are none, or a shard of the index is missing.
    """
    if (folder / INDEX_FILE).is_file():
        shards = sorted(set(_weight_map(folder / INDEX_FILE).values()))
        if outside := [name for name in shards if Path(name).name != name]:
            raise PipelineError(
                f"{folder / INDEX_FILE} names a shard outside of its folder: {outside[0]}",
                "Download the index again, from a source that you trust.",
            )
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing:
            raise PipelineError(
                f"{folder}: {len(missing)} of {len(shards)} shards named by {INDEX_FILE} are "
                f"missing, first {missing[0]}",
                "Copy or download the missing files.",
            )
        return [folder / INDEX_FILE, *(folder / name for name in shards)]
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    pickles = sorted(p.name for p in folder.glob("*.bin"))
    if pickles:
        raise PipelineError(
            f"{folder} has its weights only as {pickles[0]}, which can run code when loaded",
            "Use a revision with safetensors. If you trust the file, convert it: load it with "
            "transformers and call save_pretrained.",
        )
    raise PipelineError(
        f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}",
        "Use a folder with the model's weights.",
    )


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> shard."""
    content = read_json(index).get("weight_map")
    if not isinstance(content, dict) or not content:
        raise PipelineError(f"{index} names no shards", "Download the index again.")
    return content


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        PipelineError: The file holds no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PipelineError(f"{file} is not JSON: {error}", "Download the file again.") from error
    if not isinstance(content, dict):
        raise PipelineError(f"{file} is not a JSON object", "Download the file again.")
    return content


def count_parameters(file: Path) -> int:
    """Parameters in a safetensors file, from its header.

    Raises:
        PipelineError: The file is truncated, or not safetensors (a git-lfs pointer, a web page).
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= size - 8:
            raise _damaged(file, f"{size} bytes without a complete header")
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
        f"{file} is not a complete safetensors file: {what}",
        "Download it again (with git-lfs: `git lfs pull`).",
    )
