"""A reduced model: the real architecture with few layers, a small vocabulary and random weights.

In: a model's config. Out: models of the same classes that a CPU runs in seconds, so that properties
of the architecture are measured instead of looked up. Layers are the smallest prefix of the real
ones with one of each kind: their parameters and submodules and the values of all per-layer lists in
the config tell kinds apart.
"""

import copy
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.initialization import no_init_weights

VOCABULARY = 512
LAYERS = 2  # at least, so that errors that a second layer makes visible are seen
HEADS, WIDTH = 4, 256  # attention heads; features of models without
NOISE = 2**18 + 3  # random values, repeated; no multiple of a width, so that no two rows are equal
WINDOW = 8  # tokens that layers with a sliding window or chunks see; below the lengths of the texts
CHUNK = 16  # of recurrent layers; the implementations without kernels compute whole chunks
EXPERTS, ACTIVE_EXPERTS = 4, 2
# fields with sizes that do not change the order of operations -> their largest value
LIMITS = {
    **dict.fromkeys(
        ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"), 256
    ),
    **dict.fromkeys(("ffn_dim", "n_inner", "shared_intermediate_size"), 256),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "top_k_experts"), ACTIVE_EXPERTS),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_groups", "n_groups"), 1),
    "mamba_n_groups": 1,
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "attention_window_size"), WINDOW),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size"), CHUNK),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
}
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_WIDTHS = (
    *(
        "hidden_size",
        "n_embd",
        "d_model",
        "word_embed_proj_dim",
        "ffn_hidden_size",
        "embedding_size",
    ),
    *("mamba_n_heads", "mamba_d_ssm", "mamba_num_heads", "n_mamba_heads", "lru_width"),
    *("attention_hidden_size",),
)


def parameters_of(model: nn.Module) -> int:
    """Number of its parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The decoder's layers: the longest list of modules."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len, default=[]))


def reduced_configs(config: Any, whole: Any) -> tuple[Any, Any]:
    """Configs of the reduced model: a narrow one, and one of the real width.

    Not every family can be narrowed: widths may be bound to other fields.

    Args:
        config: Of the text model.
        whole: The whole model, without storage.
    """
    small = copy.deepcopy(config)
    count = _layers_needed(config, layers_of(whole))
    _cut_layers(small, config, count)
    for name, limit in LIMITS.items():
        value = getattr(small, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > limit:
            _set(small, name, limit)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if getattr(small, name, None) is not None:
            _set(small, name, 0)
    return _narrowed(small), small


def build(config: Any, attention: str, trust_remote_code: bool = False) -> Any:
    """A model of this config with random weights in 32 bit, in eval mode.

    The same weights at every call. They are larger than at the start of a pretraining, and norms,
    biases and gates are not at their neutral values: a part that does nothing would hide an error.
    """
    noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(0))
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(config),
            dtype=torch.float32,
            attn_implementation=attention,
            trust_remote_code=trust_remote_code,
        ).eval()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            repeats = -(-parameter.numel() // NOISE)
            values = noise.repeat(repeats)[: parameter.numel()].view(parameter.shape)
            noise = noise.roll(1009)
            if parameter.ndim < 2:
                start = 1.0 if name.endswith("weight") else 0.0
                parameter.copy_(start + 0.1 * values)
            elif "embed" in name or "wte" in name:
                parameter.copy_(values)
            else:
                parameter.copy_(values * 1.5 / max(1, parameter.shape[-1]) ** 0.5)
    return model.requires_grad_(False)


def _layers_needed(config: Any, layers: list[nn.Module]) -> int:
    """Length of the smallest prefix with one layer of each kind."""
    lists = [value for _, value in _lists(config, len(layers))]
    kinds = [
        (_structure(layer), *(repr(values[i]) for values in lists))
        for i, layer in enumerate(layers)
    ]
    last = max((kinds.index(kind) for kind in set(kinds)), default=0)
    return min(len(layers), max(LAYERS, last + 1))


def _structure(layer: nn.Module) -> tuple[tuple[str, str], ...]:
    return tuple((name, type(module).__name__) for name, module in layer.named_modules())


def _lists(config: Any, length: int) -> Iterable[tuple[str, list[Any]]]:
    """Fields with one value for each layer."""
    for name, value in vars(config).items():
        if isinstance(value, list | tuple) and len(value) == length and not _is_indexes(value):
            yield name, list(value)


def _is_indexes(values: Sequence[Any]) -> bool:
    """Whether a list holds indexes of layers: increasing whole numbers."""
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    return whole and len(values) > 1 and all(a < b for a, b in pairwise(values))


def _cut_layers(small: Any, config: Any, count: int) -> None:
    before = next((getattr(config, n) for n in _COUNTS if isinstance(_get(config, n), int)), 0)
    for name, values in list(_lists(config, before)):
        setattr(small, name, values[:count])
    for name, value in vars(config).items():  # indexes of layers
        if isinstance(value, list | tuple) and _is_indexes(value):
            setattr(small, name, [i for i in value if i < count])
    for name in _COUNTS:
        if _get(small, name) == before:
            _set(small, name, count)


def _narrowed(small: Any) -> Any:
    """The same with few attention heads of their size, and all widths that follow from them."""
    heads = next((h for name in _HEADS if (h := _get(small, name))), 0)
    width = next((w for name in _WIDTHS if (w := _get(small, name))), 0)
    divisor = Fraction(heads, HEADS) if heads else Fraction(width or 1, WIDTH)
    narrow = copy.deepcopy(small)
    if divisor <= 1:
        return narrow
    for name in (*_HEADS, *_WIDTHS):
        value = _get(small, name)
        if isinstance(value, int) and not isinstance(value, bool):
            _set(narrow, name, max(1, int(value / divisor)))
    keys = _get(small, "num_key_value_heads")
    if keys and heads:  # one, some or all of the query heads
        _set(narrow, "num_key_value_heads", HEADS if keys == heads else min(keys, HEADS // 2))
    return narrow


def _get(config: Any, name: str) -> Any:
    return getattr(config, name, None)


def _set(config: Any, name: str, value: Any) -> None:
    setattr(config, config.attribute_map.get(name, name), value)
