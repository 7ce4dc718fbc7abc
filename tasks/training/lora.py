"""The LoRA adapter: target layers, trained parameters, loading and saving.

In: a frozen base model and flat values. Out: a PEFT model whose only trainable parameters are LoRA
and the extra modules, in 32 bit; and the adapter folder in PEFT's format, with the same bytes for
the same weights.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file

from tasks.core.errors import PipelineError
from tasks.core.models.experts.forward import expected_warnings
from tasks.core.models.experts.fused import is_experts
from tasks.core.models.experts.lora_config import expert_fields, finish
from tasks.core.models.loading import linear_names

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
# what a warm start must not change: PEFT's name -> the setting's name
FIXED_SETTINGS = {
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "target_modules": "target_modules",
    "target_parameters": "expert_rank",
    "rank_pattern": "expert_rank",
    "layers_to_transform": "last_layers",
    "modules_to_save": "extra_modules",
}


def pick_targets(known: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """Last names of the layers that get LoRA, sorted; all known ones if `wanted` is empty.

    Raises:
        PipelineError: A wanted name is no linear layer of the model, or the model has none.
    """
    if not known:
        raise PipelineError(
            "the base model has 0 linear layers to which LoRA could be added",
            "Choose a base model built of torch.nn.Linear (StableLM, Llama, Qwen2).",
        )
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise PipelineError(
            f"train.target_modules: the base model has no {', '.join(unknown)}",
            f"Choose among {', '.join(known)}, or leave the list empty for all of them.",
        )
    return tuple(sorted(wanted or known))


def pick_extra(model: Any, wanted: Sequence[str]) -> list[str]:
    """Full names of the modules with these last names, sorted.

    Raises:
        PipelineError: No module with own weights has the name, or it is the head or a linear layer.
    """
    own = {
        name: name.rpartition(".")[2]
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False)) and not is_experts(module)
    }
    known = sorted(set(own.values()) - set(linear_names(model)) - {"lm_head"})
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise PipelineError(
            f"train.extra_modules: {', '.join(unknown)} can't be trained fully",
            f"Choose among {', '.join(known)}; linear layers get LoRA by train.target_modules.",
        )
    return sorted(name for name, last in own.items() if last in wanted)


def add_lora(
    model: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    expert_rank: int = 0,
    targets: Sequence[str] = (),
    last_layers: int | None = None,
    extra_modules: Sequence[str] = (),
    use_rslora: bool = False,
    use_dora: bool = False,
    seed: int = 0,
) -> Any:
    """Add LoRA to a base model; returns the PEFT model.

    `get_peft_model` freezes the base and marks what is trained; freezing by hand afterwards would
    undo that. A is initialized at random from `seed` and B to zero, so training starts at the base
    model's outputs. `expert_rank` is the rank of fused experts, which get LoRA without dropout.

    Raises:
        PipelineError: Unknown target names, or `last_layers` exceeds the layers of the model.
    """
    layers = int(model.config.get_text_config(decoder=True).num_hidden_layers)
    if last_layers is not None and last_layers > layers:
        raise PipelineError(
            f"train.last_layers is {last_layers} and the base model has {layers} layers",
            f"Set train.last_layers to at most {layers}, or null for all.",
        )
    chosen = None if last_layers is None else list(range(layers - last_layers, layers))
    torch.manual_seed(seed)
    extra = pick_extra(model, extra_modules)
    experts = expert_fields(
        *(model, chosen), expert_rank=expert_rank, rank=rank, alpha=alpha, use_rslora=use_rslora
    )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0 if experts else dropout,  # PEFT rejects it on experts
        target_modules=list(pick_targets(linear_names(model), targets)),
        layers_to_transform=chosen,
        use_rslora=use_rslora,
        use_dora=use_dora,
        modules_to_save=extra or None,
        bias="none",
        task_type="CAUSAL_LM",
        **experts,
    )
    with expected_warnings():
        tuned = get_peft_model(model, config)
    if experts:
        finish(tuned, dropout)
    for name in extra:
        _train_in_32_bit(tuned.get_base_model().get_submodule(name))
    return tuned


def _train_in_32_bit(wrapper: Any) -> None:
    """Make PEFT's trained copy of a module compute in 32 bit inside a 16-bit model."""
    copy = wrapper.modules_to_save["default"]
    kind = next(copy.parameters()).dtype
    copy.to(torch.float32)
    if kind == torch.float32:
        return

    def widen(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(x.float() if x.is_floating_point() else x for x in inputs)

    def narrow(_module: Any, _inputs: Any, output: Any) -> Any:
        return output.to(kind)

    copy.register_forward_pre_hook(widen)
    copy.register_forward_hook(narrow)


def load_start(model: Any, folder: Path) -> None:
    """Load the adapter in `folder` as the start of a training.

    Raises:
        PipelineError: The adapter has another shape or scale.
    """
    before = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(model.peft_config["default"].to_dict(), default=_to_json))
    for name, setting in FIXED_SETTINGS.items():
        if before.get(name) != now[name]:
            raise PipelineError(
                f"the adapter to start from has {setting} {before.get(name)}, and the "
                f"settings have {now[name]}",
                f"Set train.{setting} as it was, or start from the base: train.start.adapter=base.",
            )
    set_peft_model_state_dict(model, load_file(folder / WEIGHTS_FILE))


def parameter_counts(model: Any) -> tuple[int, int]:
    """(trainable, all) parameters; a 4-bit weight counts as one parameter per value."""
    trainable, total = model.get_nb_trainable_parameters()
    return int(trainable), int(total)


def save_adapter(model: Any, folder: Path, hub: str = "") -> None:
    """Write the adapter in the format of `PeftModel.from_pretrained`.

    The configuration names a base model of the hub, so that `AutoPeftModelForCausalLM` finds it,
    and no local one: it would be a path of this machine. Names and sets are sorted, so that equal
    weights give equal bytes.

    Args:
        model: With LoRA.
        folder: To write to.
        hub: "owner/model@commit" of the base; "" for a local one.
    """
    name, _, commit = hub.partition("@")
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model)
    save_file(
        {name: state[name].detach().to("cpu").contiguous() for name in sorted(state)},
        folder / WEIGHTS_FILE,
        metadata={"format": "pt"},
    )
    config = model.peft_config["default"].to_dict()
    config |= {
        "base_model_name_or_path": name,
        "inference_mode": True,
        "revision": commit or None,
    }
    (folder / CONFIG_FILE).write_text(
        json.dumps(config, indent=2, sort_keys=True, default=_to_json) + "\n", encoding="utf-8"
    )


def _to_json(value: Any) -> Any:
    """JSON for values of PEFT's configuration: sorted sets, enumerations by value."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return getattr(value, "value", str(value))
