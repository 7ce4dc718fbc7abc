"""GGUF export: a model folder -> one file for llama.cpp and Ollama, read back and compared.

One tensor at a time is in memory. Matrices have the type of the file, vectors (norms, biases) are
f32, as llama.cpp's own converter writes them. That converter (convert_hf_to_gguf.py) is in no
package that could be required: it is part of llama.cpp's source, identifies a tokenizer by a list
of known ones, and needs the SentencePiece model that transformers no longer saves.
"""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
from gguf import (
    GGUFReader,
    GGUFWriter,
    dequantize,
    quant_shape_to_byte_shape,
)
from numpy.typing import NDArray
from safetensors import safe_open

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
    Array,
    check_quantizers,
    encode,
    tolerance,
)
from tasks.merging.gguf.tokenizer import Vocabulary, read_vocabulary
from tasks.merging.safetensors_io import TensorInfo, list_tensors

ROWS_COMPARED = 4096  # at a time
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
        writer.add_tensor_info(tensor.name, size, np.dtype(np.uint8), prod(size), tensor.stored)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for factors in model.rope_tensors.values():
            writer.write_tensor_data(factors)
        for tensor in track(layout.tensors, f"writing GGUF {kind}"):
            parts = [_encoded(model, part, tensor) for part in tensor.parts]
            writer.write_tensor_data(np.stack(parts) if len(parts) > 1 else parts[0])
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


def _values(tensor: TensorInfo, start: int = 0, stop: int | None = None) -> Array:
    """A tensor of the model, or some of its rows."""
    with safe_open(tensor.file, framework="pt") as source:
        rows = source.get_slice(tensor.name)[start:stop]
    return rows.float().numpy()  # type: ignore[no-any-return]  # its dtype is Any


def _encoded(model: GgufModel, part: TensorInfo, tensor: StoredTensor) -> NDArray[np.uint8]:
    """A tensor of the model as bytes of the file."""
    rows = _values(part) + model.offset_of(tensor.name)
    largest = float(np.abs(rows).max(initial=0))
    # in quantized types only the scale has 16 bits; in q8_0 a value is up to 127 times its scale
    limit = float(np.finfo(np.float16).max) * (127 if tensor.stored is Q8 else 1)
    if tensor.stored is not F32 and not largest <= limit:
        raise PipelineError(
            f"{part.name} reaches {largest:.3g}, more than 16 bits can hold", LEAVE_OUT
        )
    if order := model.order_of(tensor.name):
        rows = order.apply(rows, model.config)
    return encode(rows, tensor.stored)


def _compare(layout: FileLayout, file: Path, kind: str) -> None:
    """Read the file back and compare it with the model's tensors.

    Raises:
        PipelineError: A tensor differs by more than its type explains.
    """
    reader = GGUFReader(file)
    found = {tensor.name: tensor for tensor in reader.tensors}
    expected = {tensor.name for tensor in layout.tensors} | layout.model.rope_tensors.keys()
    if expected != found.keys():
        names = ", ".join(sorted(expected ^ found.keys())[:3])
        raise PipelineError(f"{file.name} and the model differ in tensors: {names}", LEAVE_OUT)
    for tensor in track(layout.tensors, f"reading GGUF {kind} back"):
        data = found[tensor.name].data
        for i, part in enumerate(tensor.parts):
            stored = data[i] if len(tensor.parts) > 1 else data
            if (off := _difference(layout.model, part, tensor, stored)) > 0:
                raise PipelineError(
                    f"{tensor.name} of {file.name} is off by {off:.3g} from {part.name}",
                    "Check the disk and run again. If it fails again: " + LEAVE_OUT.lower(),
                )


def _difference(
    model: GgufModel, part: TensorInfo, tensor: StoredTensor, data: NDArray[np.uint8]
) -> float:
    """Largest difference of a stored tensor from the model's; 0.0 if its type explains all."""
    order, count, largest = model.order_of(tensor.name), part.shape[0], 0.0
    size = count if order else ROWS_COMPARED  # reordered rows are restored as a whole
    for start in range(0, count, size):
        rows = _values(part, start, start + size) + np.float32(model.offset_of(tensor.name))
        read = dequantize(data[start : start + size], tensor.stored)
        read = np.asarray(read, dtype=np.float32).reshape(rows.shape)
        if order:
            read = order.undo(read, model.config)
        off = np.abs(read - (rows.astype(np.float16) if tensor.stored is F16 else rows))
        if not bool((off <= tolerance(rows, tensor.stored)).all()):
            largest = max(largest, float(off.max()))
    return largest
