"""Types of a GGUF file's tensors: which tensor gets which, encoding, largest rounding error.

f16 and q8_0 are encoded here. q4_k_m needs llama.cpp's own quantizer, which the
package xllamacpp contains (`pip install '.[llama-cpp]'`).
"""

import ctypes
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType, dequantize, quant_shape_to_byte_shape
from gguf.constants import GGML_QUANT_SIZES
from numpy.typing import NDArray
from torch import Tensor

from tasks.core.errors import PipelineError

Kind = GGMLQuantizationType
F32, F16, Q8 = Kind.F32, Kind.F16, Kind.Q8_0
FILE_TYPES = {
    "f16": LlamaFileType.MOSTLY_F16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_k_m": LlamaFileType.MOSTLY_Q4_K_M,
}
BITS = {"f16": 16.0, "q8_0": 8.5, "q4_k_m": 4.9}  # per parameter, with the scales of blocks
# of blocks of 256 values -> of blocks of 32, for rows that are not a multiple of 256
SMALLER = {Kind.Q4_K: Kind.Q5_0, Kind.Q5_K: Kind.Q5_1, Kind.Q6_K: Q8}
STEPS = {Kind.Q4_K: 15, Kind.Q5_K: 31, Kind.Q5_0: 31, Kind.Q5_1: 31, Kind.Q6_K: 63}
KEPT = ("ffn_gate_inp.weight", "position_embd.weight")  # small, and not worth a rounding error


def check_quantizers(kinds: Sequence[str]) -> None:
    """Check that what the files need is installed.

    Raises:
        PipelineError: It is not.
    """
    if "q4_k_m" in kinds:
        _library()


def tensor_type(
    name: str, shape: Sequence[int], kind: str, *, layers: int, tied: bool
) -> GGMLQuantizationType:
    """The type of a tensor.

    Args:
        name: In the file.
        shape: In the checkpoint.
        kind: Of the file.
        layers: Of the model.
        tied: The embedding is also the head.
    """
    if len(shape) == 1 or "norm" in name or name.endswith(KEPT):
        return F32
    if kind == "f16":
        return F16
    wanted = Q8 if kind == "q8_0" else _mixed(name, layers, tied)
    for stored in (wanted, SMALLER.get(wanted, F16)):
        if shape[-1] % GGML_QUANT_SIZES[stored][0] == 0:
            return stored
    return F16


def _mixed(name: str, layers: int, tied: bool) -> GGMLQuantizationType:
    """llama.cpp's Q4_K_M: six bits for the head, and for V and down in half of the layers."""
    if name == ("token_embd.weight" if tied else "output.weight"):
        return Kind.Q6_K
    _, _, rest = name.partition("blk.")
    number, _, part = rest.partition(".")
    if part.startswith(("attn_v.", "ffn_down")):
        i, eighth = int(number), layers // 8
        more = i < eighth or i >= 7 * layers // 8 or (i - eighth) % 3 == 2
        return Kind.Q6_K if more else Kind.Q4_K
    return Kind.Q5_K if part.startswith("attn_qkv.") else Kind.Q4_K


def encode(rows: Tensor, stored: GGMLQuantizationType) -> NDArray[np.uint8]:
    """Values as bytes of the file.

    Args:
        rows: float32[n, columns], contiguous.
        stored: Type in the file.
    """
    if stored in {F32, F16}:
        values = rows if stored is F32 else rows.half()
        return values.numpy().view(np.uint8)
    if stored is Q8:
        return _q8_0(rows)
    packed = np.empty(quant_shape_to_byte_shape(rows.shape, stored), dtype=np.uint8)
    written = _library().ggml_quantize_chunk(
        *(ctypes.c_int(int(stored)), ctypes.c_void_p(rows.data_ptr())),
        packed.ctypes.data_as(ctypes.c_void_p),
        *(ctypes.c_int64(n) for n in (0, *rows.shape)),
        None,  # no importance matrix
    )
    assert written == packed.nbytes
    return packed


def _q8_0(rows: Tensor) -> NDArray[np.uint8]:
    """The bytes of `gguf.quantize`, which numpy computes on one core in five times as long."""
    blocks = rows.reshape(-1, 32)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    scaled = blocks * torch.where(scale == 0, 0, 1 / scale)
    steps = scaled.to(torch.int8)  # cut off; halves are rounded away from zero, as in C
    steps += scaled.sub_(steps).mul_(2).to(torch.int8)
    parts = scale.half().view(torch.uint8), steps.view(torch.uint8)
    return torch.cat(parts, 1).view(len(rows), -1).numpy()


def decode(data: NDArray[Any], stored: GGMLQuantizationType) -> Tensor:
    """Values float32[n, columns] of rows of the file."""
    if stored is F16:
        return torch.from_numpy(data.view(np.float16)).float()
    return torch.from_numpy(dequantize(data, stored))


@lru_cache
def _library() -> Any:
    """llama.cpp's shared library.

    Raises:
        PipelineError: It is not installed.
    """
    spec = importlib.util.find_spec("xllamacpp")
    found = sorted(Path(spec.origin).parent.glob("xllamacpp*.so")) if spec and spec.origin else []
    try:
        function = (library := ctypes.CDLL(str(found[0]))).ggml_quantize_chunk
    except (IndexError, OSError, AttributeError) as error:
        raise PipelineError(
            "GGUF q4_k_m needs llama.cpp's quantizer, and the package xllamacpp is not installed",
            "pip install 'finetune-pipeline[llama-cpp]', or leave q4_k_m out of merge.gguf.",
        ) from error
    function.restype = ctypes.c_size_t
    return library


def tolerance(rows: Tensor, stored: GGMLQuantizationType) -> Tensor | float:
    """Largest rounding error of each stored value, [n, blocks, 1]; 0 for all.

    Of f16 and f32 it is 0. Of q8_0 it is about half a step, which is 1/127 of the largest absolute
    value of a block: rounding to steps loses up to half a step; rounding the step itself to 16 bits
    loses up to 127/2048 of it. The other types choose scales that fit most values of a block, so
    that its extremes can be off by up to a step.
    """
    if stored in {F32, F16}:
        return 0.0
    block = GGML_QUANT_SIZES[stored][0]
    largest = rows.view(len(rows), -1, block).abs().amax(-1, keepdim=True)
    if stored is Q8:
        # 1e-3: rounding of this computation; 2**-25: half of the smallest step that f16 can hold
        return largest / 127 * (0.5 + 127 / 2**11 + 1e-3) + 127 * 2**-25
    return largest * 2 / STEPS[stored] + 2**-14
