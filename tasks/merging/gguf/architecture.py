"""A model's config.json and tensors in llama.cpp's words: architecture, hyper-parameters, names.

Llama and StableLM are known. llama.cpp rotates neighbouring values of a Llama head, transformers
values half a head apart, so the rows of Q and K change places; StableLM is the same in both.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map
from numpy.typing import NDArray
from transformers import AutoConfig

from tasks.core.errors import PipelineError

ARCHITECTURES = {"llama": MODEL_ARCH.LLAMA, "stablelm": MODEL_ARCH.STABLELM}
ROPES = ("default", "llama3")
SUFFIXES = (".weight", ".bias")
ROPE_FACTORS = "rope_freqs.weight"
LEAVE_OUT = "Leave gguf out: set merge.gguf to []."
Order = Callable[[NDArray[Any], int], NDArray[Any]]


@dataclass(frozen=True)
class Shape:
    """What a GGUF file says of a model besides its tensors.

    Attributes:
        architecture: "llama" or "stablelm".
        values: Hyper-parameters as (method of `GGUFWriter`, value).
        blocks: Layers.
        permuted: Heads of tensors whose rows change places, by their kind; {} none.
        rope_factors: Divisors of the rotary frequencies, float32[head / 2]; None where all are 1.
        tied: The head is the embedding.
    """

    architecture: str
    values: Mapping[str, Any]
    blocks: int
    permuted: Mapping[str, int] = field(default_factory=dict)
    rope_factors: NDArray[np.float32] | None = None
    tied: bool = False

    def names(self) -> Callable[[str], str | None]:
        """Name of a tensor here -> its name in the file; None for one that is not stored."""
        known = get_tensor_name_map(ARCHITECTURES[self.architecture], self.blocks)

        def name(tensor: str) -> str | None:
            if tensor.endswith("rotary_emb.inv_freq") or (self.tied and "lm_head" in tensor):
                return None
            found = known.get_name(tensor, SUFFIXES)
            if found is None:
                raise PipelineError(
                    f"llama.cpp has no name for {tensor} of a {self.architecture}", LEAVE_OUT
                )
            return str(found)

        return name

    def heads(self, tensor: str) -> int:
        """Heads by which the rows of a tensor change places; 0 if they stay."""
        kind = tensor.rpartition(".")[0].rpartition(".")[2]
        return self.permuted.get(kind, 0)


def shape_of(folder: Path) -> Shape:
    """Read a model's config.json.

    Raises:
        PipelineError: It is of a kind that can't be written.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise PipelineError(
            f"a model of type {kind} can't be written as GGUF here, "
            f"only {', '.join(ARCHITECTURES)} can",
            LEAVE_OUT,
        )
    rope = config.rope_parameters
    if rope["rope_type"] not in ROPES or getattr(config, "qk_layernorm", False):
        odd = f"rope_type {rope['rope_type']}" if rope["rope_type"] not in ROPES else "qk_layernorm"
        raise PipelineError(f"a {kind} with {odd} can't be written as GGUF here", LEAVE_OUT)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    turned = rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None))
    values = {
        "add_vocab_size": config.vocab_size,
        "add_context_length": config.max_position_embeddings,
        "add_embedding_length": config.hidden_size,
        "add_block_count": config.num_hidden_layers,
        "add_feed_forward_length": config.intermediate_size,
        "add_head_count": heads,
        "add_head_count_kv": kv_heads,
        "add_rope_freq_base": float(rope["rope_theta"]),
        "add_rope_dimension_count": int(head * (1.0 if turned is None else turned)),
    }
    permuted = {}
    if kind == "llama":
        values |= {
            "add_layer_norm_rms_eps": config.rms_norm_eps,
            "add_key_length": head,
            "add_value_length": head,
        }
        permuted = {"attn_q": heads, "attn_k": kv_heads}
    else:
        values |= {
            "add_layer_norm_eps": config.layer_norm_eps,
            "add_parallel_residual": config.use_parallel_residual,
        }
    return Shape(
        architecture=MODEL_ARCH_NAMES[ARCHITECTURES[kind]],
        values=values,
        blocks=config.num_hidden_layers,
        permuted=permuted,
        rope_factors=llama3_factors(rope, head) if rope["rope_type"] == "llama3" else None,
        tied=bool(config.tie_word_embeddings),
    )


def interleaved(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows in llama.cpp's order: the two halves of each head dealt alternately; 0 heads: as is."""
    if not heads:
        return rows
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


def halved(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """The inverse of `interleaved`."""
    if not heads:
        return rows
    split = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


def llama3_factors(rope: Mapping[str, Any], head: int) -> NDArray[np.float32]:
    """What Llama 3.1 divides each rotary frequency by, float32[head / 2].

    Slow frequencies are divided by `factor`, fast ones by 1, those between by a mixture, as in
    transformers' `_compute_llama3_parameters`.
    """
    frequencies = float(rope["rope_theta"]) ** (-np.arange(0, head, 2) / head)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = np.clip((turns - low) / (high - low), 0, 1)
    factors = 1 / ((1 - share) / rope["factor"] + share)
    return np.asarray(factors, dtype=np.float32)
