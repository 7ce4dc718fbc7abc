"""A model's config.json for a GGUF file: hyper-parameters, tensor names and row orders."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH_NAMES, TensorNameMap, get_tensor_name_map
from numpy.typing import NDArray
from transformers import AutoConfig

from tasks.core.errors import PipelineError
from tasks.merging.gguf.families.protocol import GgufFamily
from tasks.merging.gguf.families.registry import FAMILIES

ROPES = ("default", "llama3")
SUFFIXES = (".weight", ".bias")
ROPE_FACTORS = "rope_freqs.weight"
LEAVE_OUT = "Leave gguf out: set merge.gguf to []."


@dataclass(frozen=True)
class GgufModel:
    """What a GGUF file holds of a model besides its tensors.

    Attributes:
        family: Of the model.
        config: As transformers reads it.
        head_size: Features of an attention head.
    """

    family: GgufFamily
    config: Any
    head_size: int

    @property
    def architecture(self) -> str:
        """The name of the architecture in the file."""
        return str(MODEL_ARCH_NAMES[self.family.architecture])

    @property
    def parameters(self) -> dict[str, Any]:
        """Hyper-parameters as {method of `GGUFWriter`: value}, in the order of the file."""
        config, rope = self.config, self.config.rope_parameters
        rotated = rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None))
        values = {
            "add_vocab_size": config.vocab_size,
            "add_context_length": config.max_position_embeddings,
            "add_embedding_length": config.hidden_size,
            "add_block_count": config.num_hidden_layers,
            "add_feed_forward_length": config.intermediate_size,
            "add_head_count": config.num_attention_heads,
            "add_head_count_kv": config.num_key_value_heads,
            "add_rope_freq_base": float(rope["rope_theta"]),
            "add_rope_dimension_count": int(self.head_size * (1.0 if rotated is None else rotated)),
        }
        values |= {method: getattr(config, name) for method, name in self.family.parameters.items()}
        if self.family.writes_head_size:
            values |= {"add_key_length": self.head_size, "add_value_length": self.head_size}
        return values

    @property
    def rope_factors(self) -> NDArray[np.float32] | None:
        """Divisors of the rotary frequencies, float32[head / 2]; None if all are 1."""
        rope = self.config.rope_parameters
        return llama3_factors(rope, self.head_size) if rope["rope_type"] == "llama3" else None

    @cached_property
    def _names(self) -> TensorNameMap:
        return get_tensor_name_map(self.family.architecture, self.config.num_hidden_layers)

    def tensor_name(self, tensor: str) -> str | None:
        """The name of a tensor in the file; None for one that is not stored.

        Raises:
            PipelineError: llama.cpp has no such tensor.
        """
        tied_head = self.config.tie_word_embeddings and "lm_head" in tensor
        if tensor.endswith("rotary_emb.inv_freq") or tied_head:
            return None
        name = self._names.get_name(tensor, SUFFIXES)
        if name is None:
            raise PipelineError(
                f"llama.cpp has no name for {tensor} of a {self.architecture}", LEAVE_OUT
            )
        return str(name)

    def interleaved_heads(self, gguf_name: str) -> int:
        """Heads by which the rows of a tensor are reordered; 0 if they keep their order."""
        kind = gguf_name.rpartition(".")[0].rpartition(".")[2]
        field = self.family.interleaved.get(kind)
        return getattr(self.config, field) if field else 0


def read_model(folder: Path) -> GgufModel:
    """Read a model's config.json.

    Raises:
        PipelineError: The model can't be written as GGUF.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    kind, rope = config.model_type, config.rope_parameters
    family = next((known for known in FAMILIES if known.model_type == kind), None)
    if family is None:
        names = ", ".join(known.model_type for known in FAMILIES)
        raise PipelineError(
            f"a model of type {kind} can't be exported as GGUF, only {names} can", LEAVE_OUT
        )
    unsupported = ""
    if rope["rope_type"] not in ROPES:
        unsupported = f"rope_type {rope['rope_type']}"
    elif getattr(config, "qk_layernorm", False):
        unsupported = "qk_layernorm"
    if unsupported:
        raise PipelineError(f"a {kind} with {unsupported} can't be exported as GGUF", LEAVE_OUT)
    head_size = (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    return GgufModel(family, config, head_size)


def interleaved(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows in llama.cpp's order: the two halves of each head alternate; unchanged for 0 heads."""
    return _regrouped(rows, heads, (2, -1))


def halved(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """The inverse of `interleaved`."""
    return _regrouped(rows, heads, (-1, 2))


def _regrouped(rows: NDArray[Any], heads: int, split: tuple[int, int]) -> NDArray[Any]:
    if not heads:
        return rows
    return rows.reshape(heads, *split, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def llama3_factors(rope: Mapping[str, Any], head_size: int) -> NDArray[np.float32]:
    """Llama 3.1's divisor of each rotary frequency, float32[head / 2].

    Low frequencies are divided by `factor`, high ones by 1, those between by an interpolation, as
    in transformers' `_compute_llama3_parameters`.
    """
    frequencies = float(rope["rope_theta"]) ** (-np.arange(0, head_size, 2) / head_size)
    rotations = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = np.clip((rotations - low) / (high - low), 0, 1)
    factors = 1 / ((1 - share) / rope["factor"] + share)
    return np.asarray(factors, dtype=np.float32)
