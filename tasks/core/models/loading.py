"""One loader and one forward pass for training, evaluation and merging.

In: a folder with weights or a tokenizer, windows of token ids. Out: a frozen model, hidden
states. The base is loaded as it is computed with: NF4 with double quantization for the decoder's
linear layers, embeddings and head in 16 bit. `peft.prepare_model_for_kbit_training` is not used:
it turns embeddings and head into 32 bit (0.48 GiB each for stable-code-3b) and every norm with
them, and nothing here needs that, as only LoRA parameters are trained.
"""

import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from tasks.core.errors import PipelineError
from tasks.core.models.chunked_loss import targets_of
from tasks.core.models.packed_attention import (
    PACKED,
    cu_seqlens_mask,
    has_varlen,
    register_packed_attention,
)
from tasks.core.models.packed_dataset import Window

Quantization = Literal["nf4", "none"]
Device = Literal["auto", "cpu", "cuda"]
DType = Literal["auto", "bfloat16", "float32"]

GIB = 2**30
DEFAULT_MAX_LENGTH = 1024  # what the length is taken to be where a configuration names none
_LENGTH_NAMES = ("n_positions", "max_position_embeddings", "seq_length")
_SCALED_HEADS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


@dataclass(frozen=True)
class WindowTensors:
    """One packed window on the model's device; n tokens, k samples, m of the tokens trained.

    Attributes:
        input_ids: int64[1, n].
        position_ids: int64[1, n], starting at 0 in every sample.
        cu_seqlens: int32[k + 1], where each sample begins, then n.
        max_tokens: Length of the longest sample.
        predictors: int64[m], the positions whose next token is trained.
        targets: int64[m], that next token.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_tokens: int
    predictors: Tensor
    targets: Tensor

    @property
    def tokens(self) -> int:
        """Real tokens in the window."""
        return self.input_ids.shape[1]

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss is taken over."""
        return self.targets.shape[0]


def pick_device(setting: Device = "auto") -> torch.device:
    """The device that a setting means on this machine.

    Raises:
        PipelineError: CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if setting == "cuda" and not available:
        raise PipelineError(
            "hardware.device is cuda and PyTorch sees no CUDA device",
            "Install PyTorch for CUDA and a driver, or set hardware.device to auto or cpu.",
        )
    return torch.device("cuda" if available and setting != "cpu" else "cpu")


def pick_dtype(setting: DType, device: torch.device, quantization: Quantization) -> torch.dtype:
    """What the model computes in; auto: bfloat16, except for an unquantized model on a CPU."""
    if setting != "auto":
        return torch.float32 if setting == "float32" else torch.bfloat16
    plain_cpu = device.type == "cpu" and quantization == "none"
    return torch.float32 if plain_cpu else torch.bfloat16


def limit_memory(device: torch.device, vram_gib: float | None, expandable: bool = True) -> None:
    """Cap PyTorch's allocator on the GPU, and let its segments grow so that they do not fragment.

    Args:
        device: Nothing is done for a CPU.
        vram_gib: Most GiB that PyTorch may reserve; None: all there is.
        expandable: Use expandable segments; takes effect only before the first allocation of the
            process.
    """
    if device.type != "cuda":
        return
    if expandable:
        for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):  # newer and older name
            os.environ.setdefault(name, "expandable_segments:True")
    total = torch.cuda.get_device_properties(device).total_memory
    share = 1.0 if vram_gib is None else min(1.0, vram_gib * GIB / total)
    torch.cuda.set_per_process_memory_fraction(share)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, ready to pad on the left for batched generation.

    Padding reuses EOS where the tokenizer has no token for it. Nothing tells padding from EOS by
    its id: labels come from lengths and generation gets an attention mask, so a trained EOS is
    never hidden.

    Raises:
        PipelineError: There is no tokenizer in the folder.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"no tokenizer can be loaded from {folder}: {str(error).splitlines()[0]}",
            "Point base at a folder or model that holds tokenizer.json and tokenizer_config.json.",
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


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
        quantization: "nf4" stores the decoder's linear layers in 4 bit with double quantization;
            "none" as they are.
        device: auto takes the GPU where there is one.
        dtype: What it computes in, and what embeddings, head and norms are stored in.
        vram_gib: Cap on PyTorch's allocator, set before anything is loaded.
        expandable_segments: Let the allocator's segments grow, against fragmentation.
        trainable: Gradients will flow through it. On a CPU with AVX512-BF16 bitsandbytes repacks
            4-bit weights in the first call in eval mode, into a form that its backward pass does
            not know: after a validation, training would go on with wrong gradients and no error.
        shardable: Store 4-bit weights as numbers of the compute type, so that FSDP can flatten a
            layer into one tensor.
        trust_remote_code: Run the Python files in the folder; see `tasks.core.models.trusted_code`.

    Raises:
        PipelineError: The folder holds no model of a known kind, or one whose logits are not a
            plain linear head.
    """
    target = pick_device(device)
    limit_memory(target, vram_gib, expandable_segments)
    compute = pick_dtype(dtype, target, quantization)
    config = _load_config(folder, trust_remote_code)
    register_packed_attention()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=compute,
        quantization_config=_quantization_config(quantization, compute, shardable),
        device_map={"": str(target) if target.type == "cpu" else torch.cuda.current_device()},
        attn_implementation="sdpa",
        trust_remote_code=trust_remote_code,
        use_safetensors=True,
    )
    if has_varlen(target) and compute != torch.float32:  # the kernel knows 16 bit alone
        model.set_attn_implementation(PACKED)
    model.config.use_cache = True
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if trainable:
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    model.eval()
    return model


def _load_config(folder: Path, trust_remote_code: bool) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"no model can be loaded from {folder}: {str(error).splitlines()[0]}",
            "Point base at a causal language model that transformers knows, saved as safetensors.",
        ) from error
    scaled = [name for name in _SCALED_HEADS if getattr(config, name, None) not in (None, 1.0)]
    if scaled:
        raise PipelineError(
            f"model type {config.model_type} changes its logits by {', '.join(scaled)}",
            "Choose a base model whose logits are its head's output (StableLM, Llama, Qwen2).",
        )
    return config


def _quantization_config(quantization: Quantization, compute: torch.dtype, shardable: bool) -> Any:
    if quantization == "none":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_storage=compute if shardable else torch.uint8,
    )


def max_length(config: Any) -> int:
    """Most tokens that the model was made for; 1,024 where its configuration does not say."""
    for name in _LENGTH_NAMES:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return DEFAULT_MAX_LENGTH


def linear_names(model: nn.Module) -> tuple[str, ...]:
    """Last names of all linear layers but the head, sorted; the same in 4 bit and in 16 bit.

    bitsandbytes' Linear4bit is a `torch.nn.Linear`, so that one test serves both.
    """
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return tuple(
        sorted(
            {
                name.rpartition(".")[2]
                for name, module in model.named_modules()
                if isinstance(module, nn.Linear) and module is not head and "lm_head" not in name
            }
        )
    )


def base_model(model: Any) -> Any:
    """The transformers model inside, whether LoRA layers were put into it or not."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_of(model: Any) -> Any:
    """The layer that turns hidden states into logits."""
    return base_model(model).get_output_embeddings()


def window_tensors(window: Window, device: torch.device) -> WindowTensors:
    """Copy a window to a device; to a GPU from pinned memory, without waiting for it."""
    predictors, targets = targets_of(window.labels, window.cu_seqlens)
    lengths = window.cu_seqlens[1:] - window.cu_seqlens[:-1]

    def move(array: Any) -> Tensor:
        tensor = torch.from_numpy(array)
        return (
            tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
        )

    return WindowTensors(
        input_ids=move(window.input_ids)[None],
        position_ids=move(window.position_ids)[None],
        cu_seqlens=move(window.cu_seqlens),
        max_tokens=int(lengths.max()),
        predictors=move(predictors),
        targets=move(targets),
    )


def forward_hidden(model: Any, window: WindowTensors) -> Tensor:
    """Last hidden states [n, hidden] of a window, its samples isolated from each other.

    With varlen attention the sample bounds go to the kernel. Otherwise transformers builds a
    block mask from the restarting positions, which it does only where no attention mask is given.
    """
    decoder = base_model(model).base_model
    packed = decoder.config._attn_implementation == PACKED
    output = decoder(
        input_ids=window.input_ids,
        position_ids=window.position_ids,
        attention_mask=cu_seqlens_mask(window.cu_seqlens, window.max_tokens) if packed else None,
        use_cache=False,
    )
    return output.last_hidden_state[0]  # type: ignore[no-any-return]


def free_gpu() -> None:
    """Give unreferenced memory back to the GPU; call once nothing refers to the model."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def reset_peak() -> None:
    """Start measuring peak memory anew."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_vram_gib() -> float:
    """Most GiB that PyTorch has reserved on the GPU since `reset_peak`; 0 without a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / GIB
    return 0.0
