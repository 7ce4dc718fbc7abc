"""Groups of linear layers: frozen weights, and LoRA's matrices as views of the flat parameters."""

from typing import Any

from tasks.training.fast.model.weights import (
    LayerWeights,
    LinearGroup,
    LinearMember,
    Unsupported,
)

_ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_QUANTIZED_BLOCK = 64  # NF4 values that share a scale; the kernel needs whole blocks per row


def parameter_order(name: str) -> tuple[Any, ...]:
    """Sort key of parameters that makes the A matrices of a group adjacent.

    Order: parent module, lora_A before lora_B, the member's position in its group. Numbers in the
    path sort as numbers, so that layer 10 comes after layer 9.
    """
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.startswith("lora_")), len(parts) - 1)
    member = parts[at - 1]
    place = _ORDER.index(member) if member in _ORDER else len(_ORDER)
    path = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts[: at - 1])
    return path, parts[at], place, name


def make_group(modules: list[Any], names: dict[int, str], offsets: dict[str, int]) -> LinearGroup:
    """A group from its linear layers; checks that their A matrices are adjacent."""
    members, start, rank, loras = [], 0, 0, 0
    a_at, a_grads = -1, []
    for module in modules:
        has = hasattr(module, "lora_A")
        linear = module.base_layer if has else module
        state = getattr(linear.weight, "quant_state", None)
        size, inner = state.shape if state is not None else linear.weight.shape
        if state is not None and inner % _QUANTIZED_BLOCK:
            raise Unsupported(f"{inner} features, not a multiple of {_QUANTIZED_BLOCK}")
        b_grad, b_at = None, -1
        if has:
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            name = names[id(module)]
            at = offsets[f"{name}.lora_A.default.weight"]
            b_grad, b_at = b.grad, offsets[f"{name}.lora_B.default.weight"]
            rank = a.shape[0]
            a_at = at if a_at < 0 else a_at
            if at != a_at + loras * rank * inner:
                raise Unsupported("LoRA matrices that are not adjacent")
            a_grads.append(a.grad)
        rows = slice(start, start + size)
        lora = loras if has else None
        members.append(LinearMember(linear.weight, linear.bias, rows, lora, b_grad, b_at))
        start += size
        loras += has
    a_grad = None
    if a_grads:
        first = a_grads[0]  # the others follow in memory, as checked above
        a_grad = first.as_strided((loras * rank, inner), (inner, 1))
    return LinearGroup(tuple(members), inner, start, rank, loras, a_grad, a_at)


def lora_size(layers: tuple[LayerWeights, ...]) -> int:
    """LoRA's parameters in all groups."""
    return sum(
        group.loras * group.rank * group.inner
        + sum(m.b_grad.numel() for m in group.members if m.b_grad is not None)
        for layer in layers
        for group in layer.groups
    )


def lora_scale(layers: list[Any]) -> float:
    """LoRA's scale, which must be the same in all layers."""
    scales = {
        module.scaling["default"]
        for layer in layers
        for module in layer.modules()
        if hasattr(module, "lora_A")
    }
    if len(scales) != 1:
        raise Unsupported("LoRA layers of different scale" if scales else "no LoRA layer")
    return float(scales.pop())
