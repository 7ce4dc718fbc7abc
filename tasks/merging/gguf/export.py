"""GGUF export: a model folder -> one file for llama.cpp and Ollama, read back and compared.

A tensor per thread is in memory. Matrices have the type of the file, vectors (norms, biases) are
f32, as llama.cpp's own converter writes them. That converter (convert_hf_to_gguf.py) is in no
package that could be required: it is part of llama.cpp's source, identifies a tokenizer by a list
of known ones, and needs the SentencePiece model that transformers no longer saves.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFWriter, quant_shape_to_byte_shape
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from tasks.core.errors import PipelineError
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.core.progress import say
from tasks.core.system.atomic_write import written_whole
from tasks.core.tracking import track
from tasks.merging.gguf.architecture import LEAVE_OUT, GgufModel, read_model
from tasks.merging.gguf.layout import FileLayout, StoredTensor, layout_of
from tasks.merging.gguf.quantization import (
    BITS,
    F16,
    F32,
    FILE_TYPES,
    Q8,
    check_quantizers,
    decode,
    encode,
    tolerance,
)
from tasks.merging.gguf.tokenizer import Vocabulary, read_vocabulary
from tasks.merging.row_blocks import in_order, row_blocks
from tasks.merging.safetensors_io import TensorInfo, list_tensors

QUANTIZATION_VERSION = 2


def file_bytes(parameters: int, kinds: Sequence[str]) -> int:
    """Approximate size of all files of a model."""
    return int(sum(parameters * BITS[kind] / 8 for kind in kinds))


def check_exportable(weights: Path, tokenizer: Path, kinds: Sequence[str]) -> None:
    """Check that a model can be exported, before up to an hour is spent on merging it.

    Raises:
        PipelineError: It can't.
    """
    model = read_model(weights, ModelTraits.read(weights))
    for tensor in list_tensors(weights):
        model.tensor_name(tensor.name)
    vocabulary = read_vocabulary(tokenizer, model.config.vocab_size)
    check_quantizers(kinds)
    if model.context_length < model.config.max_position_embeddings:
        say(
            f"GGUF: llama.cpp does not apply the window of {model.context_length} tokens; the "
            "file's context length is that window"
        )
    if vocabulary.normalized:
        say("GGUF: llama.cpp does not compose accents (NFC): text with decomposed ones differs")


def write(
    folder: Path, kind: str, target: Path, *, name: str, licence: str, traits: ModelTraits
) -> None:
    """Write one file atomically; an existing file is kept.

    Args:
        folder: config.json, safetensors, tokenizer.
        kind: "f16", "q8_0" or "q4_k_m".
        target: The file.
        name: The model's name in the file.
        licence: Name of its license; "" if unknown.
        traits: Of the base model.

    Raises:
        PipelineError: A value does not fit into 16 bits, or the file read back differs.
    """
    if target.exists():
        return
    layout = layout_of(folder, kind, traits)
    if layout.vocabulary.strips and not any(word in name.lower() for word in ("phi-3", "phi3")):
        name += " (phi-3)"  # llama.cpp strips text after control tokens only for this name
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
    _add_vocabulary(writer, layout.vocabulary, model.stop_ids)
    for tensor_name, factors in model.rope_tensors.items():
        writer.add_tensor_info(tensor_name, factors.shape, factors.dtype, factors.nbytes)
    for tensor in layout.tensors:
        size = quant_shape_to_byte_shape(tensor.shape, tensor.stored)
        count = math.prod(size)
        writer.add_tensor_info(tensor.name, size, np.dtype(np.uint8), count, tensor.stored)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for factors in model.rope_tensors.values():
            writer.write_tensor_data(factors)
        encoded = in_order(partial(_encoded, model), layout.tensors)
        for data in track(encoded, f"writing GGUF {kind}", len(layout.tensors)):
            writer.write_tensor_data(data)
    finally:
        writer.close()


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary, stop_ids: Sequence[int]) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    for name, token in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(token)
    more = [token for token in stop_ids if token != vocabulary.special.get("eos")]
    for name, token in zip(("eot", "eom"), more, strict=False):
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def _matrix(tensor: TensorInfo) -> Tensor:
    """A tensor of the model [rows, columns], mapped from its file; a vector is one row."""
    with safe_open(tensor.file, framework="pt") as source:
        values: Tensor = source.get_tensor(tensor.name)
    return values.reshape(-1, tensor.shape[-1])


def _encoded(model: GgufModel, tensor: StoredTensor) -> NDArray[np.uint8]:
    """A tensor of the file as bytes."""
    size = quant_shape_to_byte_shape(tensor.shape, tensor.stored)
    encoded = np.empty(size, dtype=np.uint8)
    # in quantized types only the scale has 16 bits; in q8_0 a value is up to 127 times its scale
    limit = float(np.finfo(np.float16).max) * (127 if tensor.stored is Q8 else 1)
    order, offset = model.order_of(tensor.name), model.offset_of(tensor.name)
    for part, target in zip(tensor.parts, _per_part(encoded, tensor), strict=True):
        matrix = _matrix(part)
        if order:
            matrix = order.apply(matrix.view(part.shape), model.config).view(matrix.shape)
        for block in row_blocks(*matrix.shape):
            values = matrix[block].float() + offset
            largest = float(values.abs().max())
            if tensor.stored is not F32 and not largest <= limit:
                raise PipelineError(
                    f"{part.name} reaches {largest:.3g}, more than 16 bits can hold", LEAVE_OUT
                )
            target[block] = encode(values, tensor.stored)
    return encoded


def _per_part(data: NDArray[Any], tensor: StoredTensor) -> NDArray[Any]:
    """A tensor of the file as [parts, rows, columns]."""
    return data.reshape(len(tensor.parts), -1, data.shape[-1])


def _compare(layout: FileLayout, file: Path, kind: str) -> None:
    """Read the file back and compare it with the model's tensors.

    Raises:
        PipelineError: A tensor differs by more than its type explains.
    """
    reader = GGUFReader(file, "c")  # copied on write: PyTorch warns of arrays that are read-only
    found = {tensor.name: tensor for tensor in reader.tensors}
    expected = {tensor.name for tensor in layout.tensors} | layout.model.rope_tensors.keys()
    if expected != found.keys():
        names = ", ".join(sorted(expected ^ found.keys())[:3])
        raise PipelineError(f"{file.name} and the model differ in tensors: {names}", LEAVE_OUT)

    def compare(tensor: StoredTensor) -> list[float]:
        stored = _per_part(found[tensor.name].data, tensor)
        return [
            _difference(layout.model, part, tensor, data)
            for part, data in zip(tensor.parts, stored, strict=True)
        ]

    compared = track(
        in_order(compare, layout.tensors), f"reading GGUF {kind} back", len(layout.tensors)
    )
    for tensor, differences in zip(layout.tensors, compared, strict=True):
        for part, off in zip(tensor.parts, differences, strict=True):
            if not off <= 0:
                raise PipelineError(
                    f"{tensor.name} of {file.name} is off by {off:.3g} from {part.name}",
                    "Check the disk and run again. If it fails again: " + LEAVE_OUT.lower(),
                )


def _difference(
    model: GgufModel, part: TensorInfo, tensor: StoredTensor, data: NDArray[Any]
) -> float:
    """Largest difference of a stored tensor from the model's; 0.0 if its type explains all."""
    matrix, largest = _matrix(part), 0.0
    if order := model.order_of(tensor.name):
        rows = data.reshape(part.shape[0], -1)
        data = order.undo(rows, model.config).reshape(data.shape)
    for block in row_blocks(*matrix.shape):
        values = matrix[block].float() + model.offset_of(tensor.name)
        wanted = values.half().float() if tensor.stored is F16 else values
        off = (decode(data[block], tensor.stored) - wanted).abs_()
        allowed = tolerance(values, tensor.stored)
        per_block = off if isinstance(allowed, float) else off.view(*allowed.shape[:2], -1)
        if not bool((per_block <= allowed).all()):
            largest = max(largest, float(off.nan_to_num(math.inf).max()))
    return largest
