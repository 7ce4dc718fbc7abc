"""Traits of one base model: what the stage `base` measured and later stages rely on.

model_traits.json is in the folder of the weights: code that loads the weights loads the traits, and
they are in the key of every stage that reads the weights. Standard library only.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

TRAITS_FILE = "model_traits.json"

# how the samples of a window are kept apart: bounds passed to a varlen kernel or a block mask
# derived from positions; a block mask only; one forward pass for each sample
Isolation = Literal["varlen", "mask", "rows"]


@dataclass(frozen=True)
class ModelTraits:
    """Traits of a base model; the defaults are those of Llama.

    Attributes:
        attention: Attention implementation of transformers that equals the reference.
        isolation: How packed samples are isolated from each other.
        cache: Whether generation with the model's own cache equals generation without.
        lora: Last names of the linear layers that LoRA reaches; empty: all of them.
        experts: Whether fused experts can be quantized, trained with LoRA and merged.
        tensor_prefix: Prefix of the decoder's tensors in the checkpoint, where it differs from ...
        module_prefix: ... the prefix of the decoder's modules.
        hub: "owner/model@commit"; "" for a local model.
    """

    attention: Literal["sdpa", "eager"] = "sdpa"
    isolation: Isolation = "varlen"
    cache: bool = True
    lora: tuple[str, ...] = ()
    experts: bool = False
    tensor_prefix: str = ""
    module_prefix: str = ""
    hub: str = ""

    @classmethod
    def read(cls, folder: Path) -> "ModelTraits":
        """The traits in a folder of weights; the defaults if it has none."""
        file = folder / TRAITS_FILE
        if not file.is_file():
            return cls()
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return cls(**content | {"lora": tuple(content["lora"])})

    def write(self, folder: Path) -> None:
        """Write the traits to a folder of weights."""
        text = json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"
        (folder / TRAITS_FILE).write_text(text, encoding="utf-8")

    def module_of(self, tensor: str) -> str:
        """The name in the model of a tensor (or module) that the checkpoint names."""
        if self.tensor_prefix and tensor.startswith(self.tensor_prefix):
            return self.module_prefix + tensor.removeprefix(self.tensor_prefix)
        if not self.tensor_prefix and self.module_prefix:
            return self.module_prefix + tensor
        return tensor
