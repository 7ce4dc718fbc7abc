"""Memory estimate: GPU memory and speed of a training step that was not measured, by formulas.

In: config.json of a base model and settings of the training. Out: a `Probe` for a plan on a
machine without a GPU, or with one that was not probed yet. A test compares the formulas with the
sizes of the real buffers; benchmarks/README.md compares them with measured runs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.models.architectures.llama import LLAMA
from tasks.core.models.architectures.protocol import Architecture, LinearLayer
from tasks.core.models.architectures.registry import architecture_of
from tasks.core.models.memory_probes import NF4_BYTES, Gpu, Probe
from tasks.core.settings.train import TrainSettings

GIB = 2**30
PAD, GROUP, MLP_CHUNK, HEAD_VALUES = 32, 64, 8192, 2**26  # as in tasks.training
LORA_BYTES = (
    4 + 4 + 2
)  # value, gradient, 16-bit copy for matrix products; optimizer states are paged
OVERHEAD_GIB = 0.27  # libraries, small tensors, unused ends of segments
PLAIN_SHARE = 1.15  # memory of plain transformers and PEFT, measured at the shape of stable-code-3b
# dense 16-bit matrix products with 32-bit accumulation, TFLOP/s, from the vendors' data sheets
TFLOPS = {
    "Tesla T4": 65,
    "V100": 125,
    "RTX 2080 Ti": 54,
    "RTX 3080": 59.5,
    "RTX 3090": 71,
    "RTX 4080": 97.5,
    "RTX 4090": 165,
    "A100": 312,
    "H100": 989,
    "H200": 989,
}
USED_SHARE = 0.35  # of that limit, over a whole step
# operations per frozen weight and token: forward 2, gradient of the input 2, and 1 as half of the
# layers recompute their forward pass
FLOP_PER_WEIGHT = 5


@dataclass(frozen=True)
class DecoderShape:
    """The numbers of a decoder that determine its memory.

    Attributes:
        hidden: Features of the residual stream.
        inner: Features of the MLP.
        layers: Decoder layers.
        queries: Query heads.
        keys: Key heads.
        size: Features of a head.
        vocabulary: Rows of the embedding.
        tied: Whether the head is the embedding.
        architecture: Its linear layers and norms.
        head_norms: Whether queries and keys have norms of their own.
    """

    hidden: int
    inner: int
    layers: int
    queries: int
    keys: int
    size: int
    vocabulary: int
    tied: bool
    architecture: Architecture = LLAMA
    head_norms: bool = False

    @classmethod
    def read(cls, weights: Path) -> "DecoderShape | None":
        """From a folder's config.json; None for an architecture that is not in the table.

        Also None where the file leaves out a number that is needed, as some of composite models do.
        """
        config: Mapping[str, Any] = json.loads((weights / "config.json").read_bytes())
        config = config.get("text_config", config)
        architecture = architecture_of(config.get("model_type", ""))
        if architecture is None:
            return None

        def number(name: str) -> Any:
            return config.get(architecture.fields.get(name, name))

        needed = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
        if None in map(number, needed):
            return None
        layer, queries = architecture.layer, number("num_attention_heads")
        keys = number("num_key_value_heads") or queries
        if "multi_query" in config:  # GPT-BigCode
            keys = 1 if config["multi_query"] else queries
        norms = layer.head_norms
        return cls(
            hidden=number("hidden_size"),
            inner=number("intermediate_size") or 4 * number("hidden_size"),
            layers=number("num_hidden_layers"),
            queries=queries,
            keys=keys,
            size=number("head_dim") or number("hidden_size") // queries,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            architecture=architecture,
            head_norms=bool(config.get(norms)) if isinstance(norms, str) else norms,
        )

    def features(self, linear: LinearLayer) -> tuple[int, int]:
        """(inputs, outputs) of a linear layer."""
        widths = {
            "hidden": self.hidden,
            "inner": self.inner,
            "queries": self.queries * self.size,
            "keys": self.keys * self.size,
            "qkv": (self.queries + 2 * self.keys) * self.size,
            "gate_up": 2 * self.inner,
        }
        return widths[linear.inputs], widths[linear.outputs]

    @property
    def parts(self) -> int:
        """Outputs of the MLP's first group by F: 2 if it is gated, else 1."""
        group = self.architecture.layer.gate_up
        return sum(self.features(linear)[1] for linear in group) // self.inner

    @property
    def branches(self) -> bool:
        """Whether outputs of attention and MLP are saved for the norms after them."""
        return bool(self.architecture.layer.norms.attention_out)

    @property
    def linear_weights(self) -> int:
        """Weights of all decoder layers' linear layers."""
        linears = map(self.features, self.architecture.layer.linear_layers)
        return self.layers * sum(inputs * outputs for inputs, outputs in linears)


def estimate(
    shape: DecoderShape, settings: TrainSettings, tokens: int, gpu: Gpu | None = None
) -> Probe:
    """Memory and speed of training with windows of `tokens`; speed 0 for an unknown GPU."""
    trained = min(settings.last_layers or shape.layers, shape.layers)
    kept = kept_bytes(shape, settings, tokens)
    buffers = buffer_bytes(shape, settings, tokens)
    base = weight_bytes(shape, settings) + buffers
    plain = settings.fast_path == "off" or settings.use_dora or bool(settings.extra_modules)
    plain = plain or bool((gpu or Gpu("", "", 0.0)).no_kernels(settings.dtype))
    base_gib = base / GIB * (PLAIN_SHARE if plain else 1.0) + OVERHEAD_GIB
    flops = next((t for name, t in TFLOPS.items() if gpu and name in gpu.name), 0.0)
    speed = USED_SHARE * flops * 1e12 / (FLOP_PER_WEIGHT * shape.linear_weights)
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


def weight_bytes(shape: DecoderShape, settings: TrainSettings) -> float:
    """The frozen base, and LoRA with its gradient."""
    tables = (1 if shape.tied else 2) * shape.vocabulary * shape.hidden
    wide = 4 if settings.dtype == "float32" else 2
    linear = shape.linear_weights * (NF4_BYTES if settings.quantization == "nf4" else wide)
    trained = min(settings.last_layers or shape.layers, shape.layers)
    targets = _with_lora(shape.architecture.layer.linear_layers, settings)
    lora = trained * settings.lora_rank * sum(sum(shape.features(target)) for target in targets)
    return linear + tables * wide + lora * LORA_BYTES


def kept_bytes(shape: DecoderShape, settings: TrainSettings, tokens: int) -> int:
    """Activations of one layer that keeps them."""
    in_8_bit = shape.parts * (shape.inner + 4 * -(-shape.inner // GROUP))
    return shared_bytes(shape, settings, tokens) + tokens * in_8_bit


def shared_bytes(shape: DecoderShape, settings: TrainSettings, tokens: int) -> int:
    """Activations that all layers that keep none share."""
    heads = (shape.queries + 2 * shape.keys) * shape.size
    layer = shape.architecture.layer
    out = _extended(shape, layer.out, settings)
    if shape.head_norms:
        heads *= 2  # also saved before the norms
    hidden = (2 if shape.branches else 1) * shape.hidden
    return tokens * (2 * (heads + out + hidden) + 4 * shape.queries)


def buffer_bytes(shape: DecoderShape, settings: TrainSettings, tokens: int) -> int:
    """All buffers of the fast path with no layer kept."""
    layer, chunk = shape.architecture.layer, min(tokens, MLP_CHUNK)
    groups = (layer.qkv, layer.out, layer.gate_up, layer.down)
    qkv, out, gate_up, down = (_extended(shape, group, settings) for group in groups)
    heads = (shape.queries + 2 * shape.keys) * shape.size
    trained = min(settings.last_layers or shape.layers, shape.layers)
    stream = 3 if settings.offload_activations else trained + 2
    if shape.branches:
        stream += 2 if settings.offload_activations else trained + 1
    inner = shape.parts * shape.inner
    weight = max(heads * qkv, shape.hidden * out, inner * gate_up, shape.hidden * down)
    act = max(chunk * down, max(chunk * inner, tokens * max(heads, shape.hidden)) // 2)
    sides = trained * settings.lora_rank * len(_with_lora(layer.linear_layers, settings))
    values = tokens * (stream * shape.hidden + qkv + max(qkv, out, gate_up) + heads + sides)
    values += chunk * (gate_up + down + inner) + act + weight
    values += min(HEAD_VALUES, tokens * shape.vocabulary) + 2 * tokens
    wide = 4 * tokens * shape.hidden if settings.backward == "int8" else 0  # the residual stream
    return 2 * values + wide + shared_bytes(shape, settings, tokens)


def _extended(shape: DecoderShape, group: tuple[LinearLayer, ...], settings: TrainSettings) -> int:
    """Columns of a group's input with LoRA's columns beside them, which are padded to `PAD`."""
    inputs, _ = shape.features(group[0])
    return inputs + -(-settings.lora_rank * len(_with_lora(group, settings)) // PAD) * PAD


def _with_lora(linears: tuple[LinearLayer, ...], settings: TrainSettings) -> list[LinearLayer]:
    """Those that get LoRA."""
    targets = settings.target_modules
    return [linear for linear in linears if not targets or linear.name in targets]
