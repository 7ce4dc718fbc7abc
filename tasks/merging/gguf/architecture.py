"""A model's config.json for a GGUF file: hyper-parameters, tensor names and row orders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gguf import MODEL_ARCH_NAMES, TensorNameMap, get_tensor_name_map

from tasks.core.errors import PipelineError
from tasks.core.models.pretrained import read_config
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.merging.gguf.families.protocol import GgufFamily, RowOrder
from tasks.merging.gguf.families.registry import FAMILIES
from tasks.merging.gguf.rope import Factors, rope_parameters, rope_tensors, unsupported_rope

SUFFIXES = (".weight", ".bias")
LEAVE_OUT = "Leave gguf out: set merge.gguf to []."
_NUMBERED = re.compile(r"\.(experts|norms)\.\d+\.")


@dataclass(frozen=True)
class GgufModel:
    """What a GGUF file holds of a model besides its tensors.

    Attributes:
        family: Of the model.
        config: Of the text model, as transformers reads it.
        traits: The checkpoint's names.
        stop_ids: Tokens at which generation ends, as generation_config.json lists them.
    """

    family: GgufFamily
    config: Any
    traits: ModelTraits
    stop_ids: tuple[int, ...] = ()

    @property
    def architecture(self) -> str:
        """The name of the architecture in the file."""
        return str(MODEL_ARCH_NAMES[self.family.architecture])

    @property
    def head_size(self) -> int:
        """Features of an attention head."""
        config = self.config
        return int(
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )

    @property
    def context_length(self) -> int:
        """Longest text; a window that llama.cpp does not apply to this family bounds it."""
        config = self.config
        window = None if self.family.window_period else getattr(config, "sliding_window", None)
        longest = int(config.max_position_embeddings)
        return min(longest, window or longest)

    @property
    def parameters(self) -> dict[str, Any]:
        """Hyper-parameters as {method of `GGUFWriter`: value}, in the order of the file."""
        config = self.config
        inner = config.n_inner if hasattr(config, "n_inner") else config.intermediate_size
        heads = config.num_attention_heads
        shared = getattr(config, "num_key_value_heads", None) or heads
        values = {
            "add_vocab_size": config.vocab_size,
            "add_context_length": self.context_length,
            "add_embedding_length": config.hidden_size,
            "add_block_count": config.num_hidden_layers,
            "add_feed_forward_length": inner or 4 * config.hidden_size,
            "add_head_count": heads,
            "add_head_count_kv": 1 if getattr(config, "multi_query", False) else shared,
            "add_key_length": self.head_size,
            "add_value_length": self.head_size,
        }
        values |= rope_parameters(config, self.head_size)
        found = {method: getattr(config, name) for method, name in self.family.parameters.items()}
        return values | {method: value for method, value in found.items() if value is not None}

    @property
    def rope_tensors(self) -> dict[str, Factors]:
        """Tensors of the file that the checkpoint does not have."""
        return rope_tensors(self.config, self.head_size)

    @cached_property
    def _names(self) -> TensorNameMap:
        return get_tensor_name_map(self.family.architecture, self.config.num_hidden_layers)

    @property
    def tied(self) -> bool:
        """The head is the embedding."""
        return bool(self.config.tie_word_embeddings)

    def tensor_name(self, tensor: str) -> str | None:
        """The name of a tensor in the file; None for one that is not stored.

        Tensors with the same name are stored as one, in their order: experts, norms of heads.

        Raises:
            PipelineError: llama.cpp has no such tensor.
        """
        prefix, head = self.traits.tensor_prefix, "lm_head" in tensor
        if prefix and not (tensor.startswith(prefix) or head):
            return None  # images or audio: llama.cpp reads them from a separate file
        buffer = tensor.endswith((".inv_freq", ".attention.bias", ".masked_bias"))
        if buffer or (self.tied and head):
            return None
        module = _NUMBERED.sub(r".\1.", self.traits.module_of(tensor)).replace(".norms.", ".")
        name = self._names.get_name(module, SUFFIXES)
        if name is None:
            raise PipelineError(
                f"llama.cpp has no name for {tensor} of a {self.architecture}", LEAVE_OUT
            )
        return str(name)

    def order_of(self, gguf_name: str) -> RowOrder | None:
        """The order of a tensor's rows in the file; None if it is transformers'."""
        return self.family.orders.get(gguf_name.rpartition(".")[0].rpartition(".")[2])

    def offset_of(self, gguf_name: str) -> float:
        """What is added to a tensor's values in the file."""
        return self.family.norm_offset if gguf_name.endswith("norm.weight") else 0.0


def read_model(folder: Path, traits: ModelTraits, stop_ids: Sequence[int] = ()) -> GgufModel:
    """Read a model's config.json.

    Raises:
        PipelineError: The model can't be written as GGUF.
    """
    config = read_config(folder).get_text_config()
    family = next((known for known in FAMILIES if known.model_type == config.model_type), None)
    if family is None:
        names = ", ".join(known.model_type for known in FAMILIES)
        raise PipelineError(
            f"a model of type {config.model_type} can't be exported as GGUF, only {names} can",
            LEAVE_OUT,
        )
    if reason := _unsupported(family, config):
        raise PipelineError(
            f"a {config.model_type} with {reason} can't be exported as GGUF", LEAVE_OUT
        )
    return GgufModel(family, config, traits, tuple(stop_ids))


def _unsupported(family: GgufFamily, config: Any) -> str:
    for name, values in family.required.items():
        if (found := getattr(config, name, values[0])) not in values:
            return f"{name} {found}"
    if family.window_period and (kinds := getattr(config, "layer_types", None)):
        full = [(i + 1) % family.window_period == 0 for i in range(len(kinds))]
        if full != [kind == "full_attention" for kind in kinds]:
            return f"windows in other layers than all but every {family.window_period}th"
    return unsupported_rope(config) or family.unsupported(config)
