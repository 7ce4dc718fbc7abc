"""What training would need on a GPU that was not measured: formulas over the model's shape.

In: config.json of a base model, settings of the training. Out: a `Probe` that was not measured, for
a plan where there is no GPU, or none that was probed. Held against the buffers' real sizes by a
test, and against measured runs in benchmarks/README.md; what libraries take is a flat addition.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.models.memory_probes import Probe
from tasks.core.settings.train import TrainSettings

GIB = 2**30
PAD, MLP_CHUNK, HEAD_VALUES = 32, 8192, 2**26  # as in tasks.training
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight, its block's scale, that scale's own
LORA_BYTES = 4 + 4 + 2  # value, gradient, copy in the products' precision; states are paged
OVERHEAD_GIB = 0.27  # libraries, small tensors, unused ends of segments
PLAIN_SHARE = 1.15  # what plain transformers and peft took more, measured at one shape
KINDS = ("llama", "mistral", "qwen2", "stablelm")
# dense bf16 matrix products with 32-bit sums, TFLOP/s, by the makers' data sheets
TFLOPS = {
    "RTX 3080": 59.5,
    "RTX 3090": 71,
    "RTX 4080": 97.5,
    "RTX 4090": 165,
    "A100": 312,
    "H100": 989,
    "H200": 989,
}
USED_SHARE = 0.35  # of that limit, in a whole step
PASSES = 5  # products of the frozen weights' size: forward, backward, half of forward again


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder that memory follows from."""

    hidden: int
    inner: int
    layers: int
    queries: int
    keys: int
    size: int
    vocabulary: int
    tied: bool

    @classmethod
    def read(cls, weights: Path) -> "Shape | None":
        """From a folder's config.json; None for a kind whose layers are not known."""
        config: Mapping[str, Any] = json.loads((weights / "config.json").read_text())
        if config.get("model_type") not in KINDS:
            return None
        queries = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            queries=queries,
            keys=config.get("num_key_value_heads") or queries,
            size=config.get("head_dim") or config["hidden_size"] // queries,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    def linears(self) -> dict[str, tuple[int, int]]:
        """(features in, out) of a layer's linear layers."""
        wide, narrow = self.queries * self.size, self.keys * self.size
        return {
            "q_proj": (self.hidden, wide),
            "k_proj": (self.hidden, narrow),
            "v_proj": (self.hidden, narrow),
            "o_proj": (wide, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }

    @property
    def linear_weights(self) -> int:
        """Weights of all decoder layers' linear layers."""
        return self.layers * sum(a * b for a, b in self.linears().values())


def estimate(shape: Shape, settings: TrainSettings, tokens: int, gpu: str | None) -> Probe:
    """What training with windows of `tokens` would need; no speed for an unknown GPU."""
    trained = min(settings.last_layers or shape.layers, shape.layers)
    kept = kept_bytes(shape, settings, tokens)
    buffers = buffer_bytes(shape, settings, tokens)
    base = weight_bytes(shape, settings) + buffers + kept
    plain = settings.fast_path == "off" or settings.use_dora or bool(settings.extra_modules)
    base_gib = base / GIB * (PLAIN_SHARE if plain else 1.0) + OVERHEAD_GIB
    flops = next((t for name, t in TFLOPS.items() if gpu and name in gpu), 0.0)
    speed = USED_SHARE * flops * 1e12 / (PASSES * shape.linear_weights)
    return Probe(
        window_tokens=tokens,
        step_path="plain" if plain else "fast",
        layers=trained,
        load_gib=0.0,
        base_gib=base_gib,
        layer_gib=0.0 if plain else kept / GIB,
        kept_layers=0,
        tokens_per_s=speed / 4 if plain else speed,
    )


def weight_bytes(shape: Shape, settings: TrainSettings) -> float:
    """The frozen base and LoRA with its gradient."""
    tables = (1 if shape.tied else 2) * shape.vocabulary * shape.hidden
    wide = 4 if settings.dtype == "float32" else 2
    linear = shape.linear_weights * (NF4_BYTES if settings.quantization == "nf4" else wide)
    trained = min(settings.last_layers or shape.layers, shape.layers)
    lora = trained * settings.lora_rank * sum(sum(shape.linears()[n]) for n in _targets(settings))
    return linear + tables * wide + lora * LORA_BYTES


def kept_bytes(shape: Shape, settings: TrainSettings, tokens: int) -> int:
    """What one kept layer takes."""
    heads = (shape.queries + 2 * shape.keys) * shape.size
    values = heads + _widths(shape, settings)["out"] + shape.hidden + 2 * shape.inner
    return tokens * (2 * values + 4 * shape.queries)


def buffer_bytes(shape: Shape, settings: TrainSettings, tokens: int) -> int:
    """All other buffers of the fast path."""
    wide, chunk = _widths(shape, settings), min(tokens, MLP_CHUNK)
    heads = (shape.queries + 2 * shape.keys) * shape.size
    trained = min(settings.last_layers or shape.layers, shape.layers)
    stream = 3 if settings.offload_activations else trained + 2
    widest = max(wide["qkv"], wide["out"], wide["gate_up"])
    weights = (
        heads * wide["qkv"]
        + shape.hidden * wide["out"]
        + 2 * shape.inner * wide["gate_up"]
        + shape.hidden * wide["down"]
    )
    values = tokens * (stream * shape.hidden + wide["qkv"] + widest + heads)
    values += chunk * (wide["gate_up"] + 2 * wide["down"]) + weights
    return 2 * (values + min(HEAD_VALUES, tokens * shape.vocabulary))


def _widths(shape: Shape, settings: TrainSettings) -> dict[str, int]:
    """Columns of the groups' inputs with LoRA's beside them."""
    targets = _targets(settings)
    groups = {
        "qkv": (shape.hidden, ("q_proj", "k_proj", "v_proj")),
        "out": (shape.queries * shape.size, ("o_proj",)),
        "gate_up": (shape.hidden, ("gate_proj", "up_proj")),
        "down": (shape.inner, ("down_proj",)),
    }
    return {
        name: inner + -(-settings.lora_rank * len(targets & set(members)) // PAD) * PAD
        for name, (inner, members) in groups.items()
    }


def _targets(settings: TrainSettings) -> set[str]:
    known = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    return known & set(settings.target_modules or known)
