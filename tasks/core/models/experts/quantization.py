"""4-bit quantization of fused experts while they load, by bitsandbytes.

transformers quantizes linear layers only; with this quantizer it quantizes each fused parameter as
soon as it is read, so that the GPU never holds more than one of them in 16 bit. The result is
bitsandbytes' own `Params4bit`, which only `forward.py` computes with.
"""

from typing import Any

from bitsandbytes.nn import Params4bit
from torch import Tensor
from transformers import BitsAndBytesConfig
from transformers.integrations.bitsandbytes import Bnb4bitQuantize
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

from tasks.core.models.experts.fused import is_experts, weight_names

METHOD = "nf4_with_experts"


class ExpertsConfig(BitsAndBytesConfig):  # type: ignore[misc]
    """bitsandbytes' settings, for the quantizer below."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.quant_method = METHOD


@register_quantizer(METHOD)
class ExpertsQuantizer(Bnb4BitHfQuantizer):  # type: ignore[misc]
    """Quantizes linear layers and fused experts to 4 bit."""

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        """Whether a parameter is a linear layer's weight or a fused parameter."""
        path, _, name = param_name.rpartition(".")
        module = model.get_submodule(path)
        if is_experts(module):
            return name in weight_names(module)
        return bool(super().param_needs_quantization(model, param_name, **kwargs))

    def get_quantize_ops(self) -> Any:
        """What transformers applies to those parameters."""
        return _Quantize(self)


class _Quantize(Bnb4bitQuantize):  # type: ignore[misc]
    def convert(self, input_dict: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        model = kwargs["model"]
        experts = {
            name: value[0] if isinstance(value, list) else value
            for name, value in input_dict.items()
            if is_experts(model.get_submodule(name.rpartition(".")[0]))
        }
        linear = {name: value for name, value in input_dict.items() if name not in experts}
        result: dict[str, Tensor] = super().convert(linear, **kwargs)
        return result | {name: quantized(value) for name, value in experts.items()}


def quantized(weight: Tensor) -> Params4bit:
    """A fused weight in NF4 with double quantization, on its device."""
    packed = Params4bit(weight, requires_grad=False, quant_type="nf4").to(weight.device)
    # PEFT reads the real shape of a parameter that is stored in another one from this attribute,
    # which DeepSpeed introduced
    packed.ds_shape = weight.shape
    return packed
