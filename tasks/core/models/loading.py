"""Loads a base model: frozen, with NF4 linear layers, embeddings and head in 16 bit.

`peft.prepare_model_for_kbit_training` is not used. It casts embeddings, head and all norms to
32 bit (0.48 GiB each for embeddings and head of stable-code-3b), which training of LoRA parameters
alone does not need.
"""

import copy
import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging

from tasks.core.errors import PipelineError
from tasks.core.models.device import (
    GIB,
    Device,
    DType,
    Quantization,
    limit_memory,
    memory_limit_gib,
    pick_device,
    pick_dtype,
)
from tasks.core.models.experts.forward import expected_warnings, use_own_forward
from tasks.core.models.experts.fused import values_of
from tasks.core.models.experts.quantization import ExpertsConfig
from tasks.core.models.memory_probes import NF4_BYTES
from tasks.core.models.packed_attention import PACKED, has_varlen, register_packed_attention
from tasks.core.models.packed_forward import decoder_of
from tasks.core.models.pretrained import read_config
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.core.models.traits.own_head import OwnHead

QUANTIZED_BLOCK = 64  # 4-bit values that share a scale; bitsandbytes' CPU code needs whole blocks


def load_model(
    folder: Path,
    *,
    quantization: Quantization = "nf4",
    device: Device = "auto",
    dtype: DType = "auto",
    vram_gib: float | None = None,
    expandable_segments: bool = True,
    trainable: bool = False,
    shardable: bool = False,
    trust_remote_code: bool = False,
) -> Any:
    """A causal language model from safetensors, frozen and in eval mode, on one device.

    Args:
        folder: config.json and *.safetensors.
        quantization: "nf4" stores the decoder's linear layers and fused experts in 4 bit with
            double quantization; "none" keeps them as they are.
        device: auto takes the GPU where there is one.
        dtype: Compute type, and storage type of embeddings, head and norms.
        vram_gib: Cap on PyTorch's allocator, set before anything is loaded.
        expandable_segments: Let the allocator's segments grow, against fragmentation.
        trainable: Gradients will flow through it. On a CPU with AVX512-BF16 bitsandbytes repacks
            4-bit weights in the first call in eval mode, into a form that its backward pass does
            not know: after a validation, training would go on with wrong gradients and no error.
        shardable: Store 4-bit weights as numbers of the compute type, so that FSDP can flatten a
            layer into one tensor.
        trust_remote_code: Run the Python files in the folder; see `tasks.core.models.trusted_code`.

    What the stage `base` measured about the model (`ModelTraits`) is applied, and set on the model
    for its callers: `isolation`, `caches`, `lora_names`, `lora_on_experts`, `linear_head`. Its
    dropouts are off.

    Raises:
        PipelineError: The folder holds no model of a known type, one that a CPU can't run in 4 bit,
            or one whose weights the GPU can't hold.
    """
    target = pick_device(device)
    limit_memory(target, vram_gib, expandable_segments)
    compute: torch.dtype = getattr(torch, pick_dtype(dtype, target, quantization))
    traits = ModelTraits.read(folder)
    if traits.experts and quantization == "nf4" and shardable:
        raise PipelineError(
            "experts in 4 bit can't be sharded over several GPUs",
            "Set hardware.shard_base to false, or train.quantization to none.",
        )
    config = read_config(folder, trust_remote_code)
    if target.type == "cuda":
        _check_fits(config, traits, quantization, vram_gib, trust_remote_code)
    register_packed_attention()
    logging.disable_progress_bar()
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        config=without_dropout(config.get_text_config(decoder=True)),
        key_mapping=_key_mapping(traits),
        output_loading_info=True,
        dtype=compute,
        quantization_config=_quantization_config(quantization, compute, shardable, traits),
        device_map={"": str(target) if target.type == "cpu" else torch.cuda.current_device()},
        attn_implementation=traits.attention,
        trust_remote_code=trust_remote_code,
        use_safetensors=True,
    )
    if missing := sorted(info["missing_keys"]):  # transformers would leave them at random values
        raise PipelineError(
            f"{folder} has no values for {len(missing)} tensors of the model, such as {missing[0]}",
            "Use the complete weights of the model.",
        )
    # the kernel takes 16-bit inputs only
    if traits.isolation == "varlen" and has_varlen(target) and compute != torch.float32:
        model.set_attn_implementation(PACKED)
    if quantization == "nf4" and target.type == "cpu":
        _check_blocks(model)
    model.isolation, model.caches, model.lora_names = traits.isolation, traits.cache, traits.lora
    model.lora_on_experts = traits.experts
    if traits.experts:
        use_own_forward(model)
    model.linear_head = OwnHead(model, decoder_of(model)).is_linear()
    model.config.use_cache = True
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if trainable:
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    model.eval()
    return model


def attach_adapter(model: Any, folder: Path) -> Any:
    """A loaded base with the adapter in a folder, frozen and in eval mode.

    The adapter's dropout is left out: it has no effect here, and PEFT rejects it on experts.
    """
    config = PeftConfig.from_pretrained(folder)
    if isinstance(config, LoraConfig):
        config.lora_dropout = 0.0
    with expected_warnings():
        tuned = PeftModel.from_pretrained(model, folder, is_trainable=False, config=config).eval()
    if getattr(model, "lora_on_experts", False):
        use_own_forward(tuned)
    return tuned


def on_meta(config: Any, trust_remote_code: bool = False) -> Any:
    """A model without storage: its modules and the shapes of its parameters."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            copy.deepcopy(config), trust_remote_code=trust_remote_code
        )


def without_dropout(config: Any) -> Any:
    """A config with every dropout of the base set to 0.

    StarCoder2, Phi-2 and GPT-BigCode are published with 0.1, which is for the training of the base:
    its weights are frozen here, and LoRA has a dropout of its own (train.lora_dropout).
    """
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, name, 0.0)
    return config


def _key_mapping(traits: ModelTraits) -> dict[str, str] | None:
    """Pattern of the checkpoint's names -> their replacement, for transformers.

    It loads the tensors of a decoder alone, which have no prefix, without that.
    """
    if not traits.tensor_prefix:
        return None
    return {f"^{re.escape(traits.tensor_prefix)}": traits.module_prefix}


def _check_fits(
    config: Any,
    traits: ModelTraits,
    quantization: Quantization,
    vram_gib: float | None,
    trust_remote_code: bool,
) -> None:
    """Raise if the GPU can't hold the weights alone, before they are read for minutes."""
    model = on_meta(config.get_text_config(decoder=True), trust_remote_code)
    names = set(linear_names(model))
    layers = values_of(model) if traits.experts else 0
    layers += sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in names
    )
    total = sum(parameter.numel() for parameter in model.parameters())
    smaller = layers * (2 - NF4_BYTES) if quantization == "nf4" else 0
    needed, limit = (2 * total - smaller) / GIB, memory_limit_gib(vram_gib)
    if needed > limit:
        raise PipelineError(
            f"the base's weights take {needed:.1f} GiB and {limit:.1f} GiB of GPU memory may be "
            "used",
            "Choose a smaller base, close other programs that use the GPU, or raise "
            "hardware.vram_gib.",
        )


def _check_blocks(model: nn.Module) -> None:
    """Raise for 4-bit layers that bitsandbytes' CPU code computes wrongly or not at all."""
    odd = {
        name.rpartition(".")[2]: module.in_features
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "quant_state", None) is not None
        and module.in_features % QUANTIZED_BLOCK
    }
    if odd:
        shown = ", ".join(f"{name} {size}" for name, size in sorted(odd.items())[:3])
        raise PipelineError(
            f"{len(odd)} kinds of linear layers have features that are not a multiple of "
            f"{QUANTIZED_BLOCK} ({shown}), which a CPU can't run in 4 bit",
            "Set train.quantization, evaluate.quantization and merge.quantization to none, or use "
            "a GPU.",
        )


def _quantization_config(
    quantization: Quantization, compute: torch.dtype, shardable: bool, traits: ModelTraits
) -> Any:
    if quantization == "none":
        return None
    kind = ExpertsConfig if traits.experts else BitsAndBytesConfig
    return kind(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_storage=compute if shardable else torch.uint8,
    )


def linear_names(model: nn.Module) -> tuple[str, ...]:
    """Last names of all linear layers but the head, sorted; the same in 4 bit and in 16 bit.

    Without those that LoRA does not reach, as the stage `base` measured.
    bitsandbytes' Linear4bit is a subclass of `torch.nn.Linear`, so one test serves both.
    """
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and "lm_head" not in name
    }
    return tuple(sorted(names.intersection(getattr(model, "lora_names", ()) or names)))
