"""The content of a GGUF file: which tensors of a model folder it has, under which name and type."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType

from tasks.core.models.traits.model_traits import ModelTraits
from tasks.merging.gguf.architecture import GgufModel, read_model
from tasks.merging.gguf.quantization import tensor_type
from tasks.merging.gguf.tokenizer import Vocabulary, read_vocabulary
from tasks.merging.safetensors_io import TensorInfo, list_tensors


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the file.

    Attributes:
        name: In the file.
        parts: Tensors of the model; several (experts, norms of heads) are stacked.
        stored: Type in the file.
    """

    name: str
    parts: tuple[TensorInfo, ...]
    stored: GGMLQuantizationType

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape before encoding."""
        shape = tuple(self.parts[0].shape)
        return (len(self.parts), *shape) if len(self.parts) > 1 else shape


@dataclass(frozen=True)
class FileLayout:
    """The content of a file."""

    model: GgufModel
    vocabulary: Vocabulary
    tensors: Sequence[StoredTensor]


def layout_of(folder: Path, kind: str, traits: ModelTraits) -> FileLayout:
    """The content of a model folder's file.

    Args:
        folder: config.json, safetensors, tokenizer.
        kind: "f16", "q8_0" or "q4_k_m".
        traits: Of the base model.
    """
    model = read_model(folder, traits, _stop_ids(folder))
    parts: dict[str, list[TensorInfo]] = {}
    for tensor in sorted(list_tensors(folder), key=lambda tensor: _natural(tensor.name)):
        if (name := model.tensor_name(tensor.name)) is not None:
            parts.setdefault(name, []).append(tensor)
    layers = model.config.num_hidden_layers
    tensors = [
        StoredTensor(
            *(name, tuple(found)),
            tensor_type(name, found[0].shape, kind, layers=layers, tied=model.tied),
        )
        for name, found in parts.items()
    ]
    return FileLayout(model, read_vocabulary(folder, model.config.vocab_size), tensors)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key: numbers by value, so that expert 10 follows expert 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _stop_ids(folder: Path) -> list[int]:
    file = folder / "generation_config.json"
    if not file.is_file():
        return []
    found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    return found if isinstance(found, list) else [] if found is None else [found]
