"""GGUF export: a model folder -> one file for llama.cpp and Ollama, read back and compared.

One tensor at a time is in memory. Matrices are f16 or q8_0, vectors (norms, biases) f32, as
llama.cpp's own converter writes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from gguf import (
    GGMLQuantizationType,
    GGUFReader,
    GGUFWriter,
    LlamaFileType,
    dequantize,
    quant_shape_to_byte_shape,
    quantize,
)
from numpy.typing import NDArray
from safetensors import safe_open

from tasks.core.errors import PipelineError
from tasks.core.system.atomic_write import written_whole
from tasks.core.tracking import track
from tasks.merging.gguf.architecture import (
    LEAVE_OUT,
    ROPE_FACTORS,
    GgufModel,
    halved,
    interleaved,
    read_model,
)
from tasks.merging.gguf.tokenizer import Vocabulary, read_vocabulary
from tasks.merging.safetensors_io import TensorInfo, list_tensors

F32, F16, Q8 = GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0
KINDS = {"f16": F16, "q8_0": Q8}
FILE_TYPES = {"f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
BITS = {"f16": 16.0, "q8_0": 8.5}  # per parameter; q8_0 has a 16-bit scale for each block
ROWS_COMPARED = 4096  # at a time
BLOCK = 32  # values with a common scale in q8_0
QUANTIZATION_VERSION = 2
Array = NDArray[np.float32]


@dataclass(frozen=True)
class FileLayout:
    """The content of a file.

    Attributes:
        model: Hyper-parameters.
        vocabulary: Tokenizer.
        tensors: (tensor of the model, its name in the file, its type in the file).
    """

    model: GgufModel
    vocabulary: Vocabulary
    tensors: Sequence[tuple[TensorInfo, str, GGMLQuantizationType]]


def file_bytes(parameters: int, kinds: Sequence[str]) -> int:
    """Approximate size of all files of a model."""
    return int(sum(parameters * BITS[kind] / 8 for kind in kinds))


def check_exportable(weights: Path, tokenizer: Path) -> None:
    """Check that a model can be exported, before up to an hour is spent on merging it.

    Raises:
        PipelineError: It can't.
    """
    model = read_model(weights)
    for tensor in list_tensors(weights):
        model.tensor_name(tensor.name)
    read_vocabulary(tokenizer, model.config.vocab_size)


def layout_of(folder: Path, kind: str) -> FileLayout:
    """The content of a model folder's file.

    Args:
        folder: config.json, safetensors, tokenizer.
        kind: "f16" or "q8_0".
    """
    model = read_model(folder)
    tensors = []
    for tensor in list_tensors(folder):
        if (name := model.tensor_name(tensor.name)) is not None:
            stored = KINDS[kind] if len(tensor.shape) > 1 else F32
            if stored is Q8 and tensor.shape[-1] % BLOCK:
                stored = F16
            tensors.append((tensor, name, stored))
    return FileLayout(model, read_vocabulary(folder, model.config.vocab_size), tensors)


def write(folder: Path, kind: str, target: Path, *, name: str, licence: str) -> None:
    """Write one file atomically; an existing file is kept.

    Args:
        folder: config.json, safetensors, tokenizer.
        kind: "f16" or "q8_0".
        target: The file.
        name: The model's name in the file.
        licence: Name of its license; "" if unknown.

    Raises:
        PipelineError: A value does not fit into 16 bits, or the file read back differs.
    """
    if target.exists():
        return
    layout = layout_of(folder, kind)
    with written_whole(target) as temporary:
        _write(layout, temporary, kind, name, licence)
        _compare(layout, temporary, kind)


def _write(layout: FileLayout, target: Path, kind: str, name: str, licence: str) -> None:
    model = layout.model
    writer = GGUFWriter(target, model.architecture)
    writer.add_type("model")
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(QUANTIZATION_VERSION)
    for method, value in model.parameters.items():
        getattr(writer, method)(value)
    _add_vocabulary(writer, layout.vocabulary)
    if (factors := model.rope_factors) is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for tensor, gguf_name, stored in layout.tensors:
        size = quant_shape_to_byte_shape(tensor.shape, stored)
        writer.add_tensor_info(gguf_name, size, np.dtype(np.uint8), prod(size), stored)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for tensor, gguf_name, stored in track(layout.tensors, f"writing GGUF {kind}"):
            rows = interleaved(_values(tensor), model.interleaved_heads(gguf_name))
            writer.write_tensor_data(_encoded(rows, stored, tensor.name))
    finally:
        writer.close()


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for name, token in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def _values(tensor: TensorInfo, start: int = 0, stop: int | None = None) -> Array:
    """A tensor of the model, or some of its rows."""
    with safe_open(tensor.file, framework="pt") as source:
        rows = source.get_slice(tensor.name)[start:stop]
    return rows.float().numpy()  # type: ignore[no-any-return]


def _encoded(rows: Array, stored: GGMLQuantizationType, name: str) -> NDArray[np.uint8]:
    """Values as bytes of the file."""
    with np.errstate(over="ignore"):
        packed = quantize(np.ascontiguousarray(rows), stored)
    largest = float(np.abs(rows).max(initial=0))
    # in q8_0 only the scale has 16 bits, and a value is up to 127 times its scale
    limit = float(np.finfo(np.float16).max) * (127 if stored is Q8 else 1)
    if stored is not F32 and not largest <= limit:
        raise PipelineError(f"{name} reaches {largest:.3g}, more than 16 bits can hold", LEAVE_OUT)
    return packed.view(np.uint8)  # type: ignore[no-any-return]


def _compare(layout: FileLayout, file: Path, kind: str) -> None:
    """Read the file back and compare it with the model's tensors.

    Raises:
        PipelineError: A tensor differs by more than its type explains.
    """
    reader = GGUFReader(file)
    found = {tensor.name: tensor for tensor in reader.tensors}
    expected = {name for _, name, _ in layout.tensors}
    expected |= {ROPE_FACTORS} if layout.model.rope_factors is not None else set()
    if expected != found.keys():
        names = ", ".join(sorted(expected ^ found.keys())[:3])
        raise PipelineError(f"{file.name} and the model differ in tensors: {names}", LEAVE_OUT)
    for tensor, name, stored in track(layout.tensors, f"reading GGUF {kind} back"):
        heads, count = layout.model.interleaved_heads(name), tensor.shape[0]
        size = count if heads else ROWS_COMPARED  # reordered rows are restored as a whole
        for start in range(0, count, size):
            rows = _values(tensor, start, start + size)
            read = dequantize(found[name].data[start : start + size], stored)
            read = halved(np.asarray(read, dtype=np.float32).reshape(rows.shape), heads)
            off = np.abs(read - (rows.astype(np.float16) if stored is F16 else rows))
            if not bool((off <= tolerance(rows, stored)).all()):
                raise PipelineError(
                    f"{name} of {file.name} is off by {float(off.max()):.3g} from {tensor.name}",
                    "Check the disk and run again. If it fails again: " + LEAVE_OUT.lower(),
                )


def tolerance(rows: Array, stored: GGMLQuantizationType) -> Array | float:
    """Largest rounding error of each stored value: 0, or for q8_0 about half a step.

    A step is 1/127 of the largest absolute value of a block. Rounding to steps loses up to half a
    step; rounding the step itself to 16 bits loses up to 127/2048 of it.
    """
    if stored is not Q8:
        return 0.0
    largest = np.abs(rows).reshape(*rows.shape[:-1], -1, BLOCK).max(axis=-1)
    # 1e-3: rounding of this computation; 2**-25: half of the smallest step that f16 can hold
    error = largest / 127 * (0.5 + 127 / 2**11 + 1e-3) + 127 * 2**-25
    return np.repeat(error, BLOCK, axis=-1).astype(np.float32)
