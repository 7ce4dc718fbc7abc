"""Extracts weights, LoRA matrices and shapes from a PEFT model for the fast path.

In: a PEFT model; the table of architectures describes its decoder layers. Out: a
`FastModel` of plain tensors, or `Unsupported` with the reason, upon which the autograd stepper is
used. Anything that is not checked here would train wrongly without an error, so a model is
supported only if its layer class is known and every deviation from the table is excluded.
"""

from typing import Any

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer, LinearLayer
from tasks.core.models.architectures.registry import ACTIVATIONS, ARCHITECTURES, PLAIN_IF_SET
from tasks.core.models.packed_forward import base_model, head_of
from tasks.training.fast.model.groups import lora_scale, lora_size, make_group
from tasks.training.fast.model.norms import head_norms_of, norm_of, scaled
from tasks.training.fast.model.weights import (
    FastModel,
    LastStep,
    LayerWeights,
    LinearGroup,
    Unsupported,
)
from tasks.training.fast.ops.operands import Activation, Heads

REMOTE_CODE = "transformers_modules"  # package in which transformers imports a model's own code
# decoder layer classes of transformers -> the architecture that describes them
SUPPORTED_LAYERS = {known.layer.class_name: known for known in ARCHITECTURES}


def extract_model(model: Any, offsets: dict[str, int]) -> FastModel:
    """Extract what the fast path needs.

    Args:
        model: With LoRA; its parameters are in flat tensors already.
        offsets: name of a parameter -> its offset in the flat parameters.

    Raises:
        Unsupported: With the reason.
    """
    base = base_model(model)
    decoder, config, lora = base.base_model, base.config, model.peft_config["default"]
    if any(type(module).__module__.startswith(REMOTE_CODE) for module in base.modules()):
        raise Unsupported("code that comes with the model")
    layers = list(getattr(decoder, "layers", ()) or getattr(decoder, "h", ()))
    if not layers:
        raise Unsupported(f"decoders of kind {type(decoder).__name__}")
    _check_kinds(layers)
    known = SUPPORTED_LAYERS[type(layers[0]).__name__]
    _check_config(config, lora)
    names = {id(module): name for name, module in model.named_modules()}
    built = tuple(_layer(layer, known.layer, config, names, offsets) for layer in layers)
    scale = lora_scale(layers)
    # a trained parameter that the fast path does not know would never get a gradient
    if sum(p.numel() for p in model.parameters() if p.requires_grad) != lora_size(built):
        raise Unsupported("parameters other than LoRA's are trained")
    attention = getattr(layers[0], known.layer.attention)
    return FastModel(
        embedding=base.get_input_embeddings(),
        positions=getattr(decoder, known.positions) if known.positions else None,
        rotary=getattr(decoder, "rotary_emb", None),
        layers=built,
        last=_last_step(base, decoder, head_of(model), known),
        heads=_heads(attention, decoder, config, known.layer, built),
        hidden=config.hidden_size,
        scale=scale,
        dropout=float(lora.lora_dropout),
        first_trained=next(i for i, layer in enumerate(built) if layer.trained),
        embedding_scale=_number(config, known.embedding_scale, 1.0),
    )


def _check_kinds(layers: list[Any]) -> None:
    for kind in {type(layer).__name__ for layer in layers}:
        if kind not in SUPPORTED_LAYERS:
            raise Unsupported(f"layers of kind {kind}")


def _check_config(config: Any, lora: Any) -> None:
    """Raise for options of model or LoRA that the fast path does not implement."""
    if lora.use_dora:
        raise Unsupported("DoRA")
    if lora.bias != "none" or lora.modules_to_save or lora.lora_bias:
        raise Unsupported("LoRA with biases or extra trained modules")
    for name in PLAIN_IF_SET:
        if getattr(config, name, 0):
            raise Unsupported(f"{name} of the base model")


def _number(owner: Any, name: str, default: float) -> float:
    """A number of a config or a module; the default without a name, or where it is None."""
    found = getattr(owner, name) if name else None
    return default if found is None else float(found)


def _flag(owner: Any, given: bool | str) -> bool:
    return bool(getattr(owner, given)) if isinstance(given, str) else given


def _last_step(base: Any, decoder: Any, head: Any, known: Architecture) -> LastStep:
    """Norm and head; multipliers of the logits go into the norm, as the head is linear."""
    config = base.config
    factor = _number(config, known.logits_factor, 1.0) / _number(config, known.logits_divisor, 1.0)
    cap = _number(config, known.logits_cap, 0.0)
    bias = getattr(head, "bias", None)
    if not getattr(base, "linear_head", True) and factor == 1.0 and not cap:
        raise Unsupported("the model scales or caps its logits")
    if bias is not None and factor != 1.0:
        raise Unsupported("scaled logits and a head with a bias")
    norm = norm_of(getattr(decoder, known.last_norm), known.layer.norm_offset)
    return LastStep(scaled(norm, factor), head.weight, bias, cap)


def _heads(
    attention: Any, decoder: Any, config: Any, form: DecoderLayer, layers: tuple[LayerWeights, ...]
) -> Heads:
    queries = config.num_attention_heads
    size = layers[0].out.inner // queries
    keys, rest = divmod(layers[0].qkv.rows - queries * size, 2 * size)
    if rest or queries % keys:
        raise Unsupported(f"{layers[0].qkv.rows} features of queries, keys and values")
    grouped = _flag(config, form.grouped_heads) != isinstance(form.grouped_heads, str)
    kinds = [layer.rotation for layer in layers if layer.rotation is not None]
    rotated = 0
    if kinds:
        table = f"{kinds[0]}_inv_freq" if form.rotation_by_type else "inv_freq"
        rotated = 2 * getattr(decoder.rotary_emb, table).shape[0]
    return Heads(
        queries,
        keys,
        size,
        rotated,
        scaling=float(attention.scaling),
        cap=_number(config, form.attention_cap, 0.0),
        adjacent_pairs=form.adjacent_pairs,
        grouped=grouped,
    )


def _layer(
    layer: Any, form: DecoderLayer, config: Any, names: dict[int, str], offsets: dict[str, int]
) -> LayerWeights:
    attention, mlp = getattr(layer, form.attention), layer.mlp
    has_norms = _flag(config, form.head_norms)
    if hasattr(attention, "q_norm") and not has_norms:
        raise Unsupported("norms on queries and keys")
    parallel = _flag(layer, form.parallel)

    def group(parent: Any, members: tuple[LinearLayer, ...]) -> LinearGroup:
        return make_group([getattr(parent, member.name) for member in members], names, offsets)

    def norm(name: str) -> Any:
        return norm_of(getattr(layer, name), form.norm_offset) if name else None

    first, last = group(mlp, form.gate_up), group(mlp, form.down)
    built = LayerWeights(
        norm1=norm(form.norms.attention),
        qkv=group(attention, form.qkv),
        out=group(attention, form.out),
        norm2=norm(form.parallel_norm if parallel else form.norms.mlp),
        gate_up=first,
        down=last,
        activation=_activation(config, form, first, last),
        after1=norm(form.norms.attention_out),
        after2=norm(form.norms.mlp_out),
        head_norms=head_norms_of(attention, form.norm_offset) if has_norms else None,
        parallel=parallel,
        rotation=_rotation(attention, form),
        window=_window(attention, config, form),
        branch_scale=_number(layer, form.branch_scale, 1.0),
    )
    if built.after1 is not None and (built.branch_scale != 1.0 or parallel):
        raise Unsupported("scaled or parallel branches with norms after them")
    return built


def _activation(
    config: Any, form: DecoderLayer, first: LinearGroup, last: LinearGroup
) -> Activation:
    name = getattr(config, form.activation)
    if name not in ACTIVATIONS:
        raise Unsupported(f"activation {name}")
    return Activation(ACTIVATIONS[name], gated=first.rows == 2 * last.inner)


def _rotation(attention: Any, form: DecoderLayer) -> str | None:
    if not _flag(attention, form.rotates):
        return None
    return str(attention.layer_type) if form.rotation_by_type else ""


def _window(attention: Any, config: Any, form: DecoderLayer) -> int:
    """The sliding window of a layer, or 0."""
    owner = {"": None, "layer": attention, "config": config}[form.window]
    return int(getattr(owner, "sliding_window", None) or 0)
