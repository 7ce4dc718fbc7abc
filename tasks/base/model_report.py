"""Model report: what this base supports, measured before anything is trained.

In: the weights' and the tokenizer's folders as the stage wrote them. Out: `ModelTraits` for the
stages that load the model, and the content of checks.json for `finetune plan` and `show base`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from tasks.base.model_check import ArchitectureCheck, check_architecture
from tasks.base.reduced_model import layers_of, parameters_of, reduced_configs
from tasks.core.errors import PipelineError
from tasks.core.models.architectures.registry import plain_reason
from tasks.core.models.experts.checkpoint import parts_of
from tasks.core.models.experts.fused import FusedWeight, active_experts, fused_weights
from tasks.core.models.loading import QUANTIZED_BLOCK, linear_names, on_meta
from tasks.core.models.pretrained import read_config, read_tokenizer
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.core.text.special_tokens import ControlTokens, MissingTokenError

CHECKS_FILE = "checks.json"
_RENAMED = ("cache", "experts")  # fields of `ArchitectureCheck` that the report states otherwise
Shapes = Mapping[str, tuple[int, ...]]


def examine(
    weights: Path, tokenizer: Path, hub: str, trust_remote_code: bool = False
) -> tuple[ModelTraits, dict[str, Any]]:
    """The traits of a base model and the report.

    Args:
        weights: config.json and safetensors.
        tokenizer: The tokenizer's folder.
        hub: "owner/model@commit"; "" for a local model.
        trust_remote_code: Run the model's own code.

    Raises:
        PipelineError: The model can't be trained, evaluated and merged correctly.
    """
    config = read_config(weights, trust_remote_code)
    text = config.get_text_config(decoder=True)
    if getattr(config, "is_encoder_decoder", False):
        raise PipelineError(
            f"the base model (type {config.model_type}) is an encoder-decoder",
            "Choose a causal language model such as Llama, Qwen, StableLM, Mistral or Gemma.",
        )
    whole = on_meta(text, trust_remote_code)
    found = check_architecture(reduced_configs(text, whole), trust_remote_code)
    shapes = _shapes(weights)
    linear = {
        f"{name}.weight": module
        for name, module in whole.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in found.lora
    }
    tensor_prefix, module_prefix = _prefixes(linear, shapes)
    traits = ModelTraits(
        attention=found.attention,
        isolation=found.isolation,
        cache=found.cache,
        lora=found.lora if found.unreached else (),
        tensor_prefix=tensor_prefix,
        module_prefix=module_prefix,
        hub=hub,
    )
    _check_names(linear, shapes, traits, config.model_type)
    fused = list(fused_weights(whole)) if found.experts else []
    if fused and _are_stored(whole, fused, shapes, traits):
        traits = replace(traits, experts=True)
    else:
        fused = []
    tokens = read_tokenizer(tokenizer)
    _check_vocabulary(whole, tokens)
    return traits, _report(config, whole, linear, fused, found, tokens)


def _report(
    config: Any,
    whole: Any,
    linear: Mapping[str, Any],
    fused: Sequence[FusedWeight],
    found: ArchitectureCheck,
    tokenizer: Any,
) -> dict[str, Any]:
    template = tokenizer.chat_template or ""
    return {
        "model_type": config.model_type,
        "plain_reason": plain_reason(whole.config),
        **counts(whole, linear.values(), fused),
        "odd_features": {
            name.removesuffix(".weight").rpartition(".")[2]: module.in_features
            for name, module in linear.items()
            if module.in_features % QUANTIZED_BLOCK
        },
        "chat": bool(template),
        "tools": "tools" in str(template),
        "infilling": _can_fill(tokenizer),
        "generation_cache": found.cache,
        "trusted_code": bool(getattr(config, "auto_map", None)),
        **{name: value for name, value in asdict(found).items() if name not in _RENAMED},
        # rounding differs between machines: the report says how much, in powers of ten
        "leak": f"{found.leak:.0e}",
    }


def counts(whole: Any, linear: Collection[Any], fused: Sequence[FusedWeight]) -> dict[str, Any]:
    """Numbers of parameters, from which a plan computes memory.

    Args:
        whole: The model, without storage.
        linear: Its linear layers that LoRA reaches; the others are quantized, too.
        fused: Its fused weights that can be quantized and trained.
    """
    total = parameters_of(whole)
    reached = sum(module.weight.numel() for module in linear)
    every = linear_names(whole)
    unreached = -reached + sum(
        module.weight.numel()
        for name, module in whole.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in every
    )
    tables = sum(m.weight.numel() for m in whole.modules() if isinstance(m, nn.Embedding))
    rows, hidden = whole.get_input_embeddings().weight.shape
    return {
        "parameters": total,
        "linear_parameters": reached,
        "unreached_parameters": unreached,
        "other_parameters": total - reached - unreached - tables - sum(w.values for w in fused),
        "experts": _experts(whole.config, fused),
        "shape": {
            "hidden": hidden,
            "layers": len(layers_of(whole)),
            "vocabulary": rows,
            "lora_per_rank": sum(sum(module.weight.shape) for module in linear),
        },
    }


def _experts(config: Any, fused: Sequence[FusedWeight]) -> dict[str, int]:
    """Numbers about fused experts that can be quantized and trained; {} without any."""
    if not fused:
        return {}
    return {
        "parameters": sum(weight.values for weight in fused),
        "layers": len({weight.name.rpartition(".")[0] for weight in fused}),
        "each": fused[0].experts,
        "active": active_experts(config),
        "largest": max(weight.values for weight in fused),
        "lora_per_rank": sum(weight.lora_values(1) for weight in fused),
    }


def _can_fill(tokenizer: Any) -> bool:
    try:
        ControlTokens(tokenizer).infilling()
    except MissingTokenError:
        return False
    return True


def _shapes(weights: Path) -> Shapes:
    """Shape of every tensor of the checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(weights.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                shapes[name] = tuple(tensors.get_slice(name).get_shape())
    return shapes


def _prefixes(linear: Collection[str], shapes: Shapes) -> tuple[str, str]:
    """(prefix in the checkpoint, prefix of the modules) where the names differ in that only."""
    absent = [name for name in linear if name not in shapes]
    if not absent:
        return "", ""
    pairs: set[tuple[str, str]] = set()
    for name in absent:
        parts = name.split(".")
        for at in range(len(parts) - 1):
            suffix, module = ".".join(parts[at:]), "".join(f"{part}." for part in parts[:at])
            matches = [t for t in shapes if t == suffix or t.endswith(f".{suffix}")]
            if matches:
                pairs.update((t.removesuffix(suffix), module) for t in matches)
                break

    def resolved(pair: tuple[str, str]) -> int:
        traits = ModelTraits(tensor_prefix=pair[0], module_prefix=pair[1])
        known = {traits.module_of(name) for name in shapes}
        return sum(name in known for name in linear)

    return max((("", ""), *sorted(pairs)), key=resolved)


def _check_names(linear: Mapping[str, Any], shapes: Shapes, traits: ModelTraits, kind: str) -> None:
    """Check that the checkpoint has every layer that LoRA changes, so that it can be merged."""
    known = {traits.module_of(name): shape for name, shape in shapes.items()}
    wrong = [n for n, module in linear.items() if known.get(n) != tuple(module.weight.shape)]
    if wrong:
        raise PipelineError(
            f"the checkpoint (type {kind}) stores {len(wrong)} of {len(linear)} linear layers under"
            f" other names or shapes, such as {wrong[0]}, so that they could not be merged",
            "Load the model with transformers and save it again with save_pretrained, or choose "
            "another base model.",
        )


def _are_stored(
    whole: Any, fused: Sequence[FusedWeight], shapes: Shapes, traits: ModelTraits
) -> bool:
    """Whether the checkpoint has every tensor that the fused experts are made of."""
    known = {traits.module_of(name): shape for name, shape in shapes.items()}
    parts = parts_of(whole, {w.name: whole.get_parameter(w.name) for w in fused})
    return all(known.get(name) == tuple(part.shape) for name, part in parts.items())


def _check_vocabulary(whole: Any, tokenizer: Any) -> None:
    rows = whole.get_input_embeddings().weight.shape[0]
    ids = tokenizer.get_vocab()
    outside = {token: number for token, number in ids.items() if number >= rows}
    if outside:
        token, number = max(outside.items(), key=lambda entry: entry[1])
        raise PipelineError(
            f"the tokenizer has {len(outside)} tokens outside of the {rows:,} rows of the "
            f"embedding, such as {token!r} ({number:,})",
            "Use the tokenizer that belongs to the weights, or remove the tokens from it.",
        )
