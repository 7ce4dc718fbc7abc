"""A model folder -> one GGUF file for llama.cpp and Ollama, read back and compared.

One tensor is in memory at a time. Matrices are f16 or q8_0, vectors (norms, biases) f32, as
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
    Shape,
    halved,
    interleaved,
    shape_of,
)
from tasks.merging.gguf.tokenizer import Vocabulary, read_vocabulary
from tasks.merging.safetensors_io import Entry, list_tensors

F32, F16, Q8 = GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0
KINDS = {"f16": F16, "q8_0": Q8}
FILE_TYPES = {"f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
BITS = {"f16": 16.0, "q8_0": 8.5}  # a parameter
PIECE = 4096  # rows that are compared at a time
BLOCK = 32  # values that share a scale in q8_0
QUANTIZATION_VERSION = 2
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Plan:
    """What a file will hold.

    Attributes:
        tensors: (tensor of the model, its name in the file, how it is stored).
    """

    shape: Shape
    vocabulary: Vocabulary
    tensors: Sequence[tuple[Entry, str, GGMLQuantizationType]]


def file_bytes(parameters: int, kinds: Sequence[str]) -> int:
    """About how much disk the files of a model take together."""
    return int(sum(parameters * BITS[kind] / 8 for kind in kinds))


def check_exportable(weights: Path, tokenizer: Path) -> None:
    """See that a model can be written, before an hour goes into merging it.

    Raises:
        PipelineError: It can't.
    """
    shape = shape_of(weights)
    rename = shape.names()
    for entry in list_tensors(weights):
        rename(entry.name)
    read_vocabulary(tokenizer, shape.values["add_vocab_size"])


def plan_file(folder: Path, kind: str) -> Plan:
    """What the file of a model folder will hold.

    Args:
        folder: config.json, safetensors, tokenizer.
        kind: "f16" or "q8_0".
    """
    shape = shape_of(folder)
    rename = shape.names()
    tensors = []
    for entry in list_tensors(folder):
        if (name := rename(entry.name)) is not None:
            stored = KINDS[kind] if len(entry.shape) > 1 else F32
            if stored is Q8 and entry.shape[-1] % BLOCK:
                stored = F16
            tensors.append((entry, name, stored))
    return Plan(shape, read_vocabulary(folder, shape.values["add_vocab_size"]), tensors)


def write(folder: Path, kind: str, target: Path, *, name: str, licence: str) -> None:
    """Write one file, whole or not at all; a file that is there is left as it is.

    Args:
        folder: As in `plan_file`, like `kind`.
        kind: "f16" or "q8_0".
        target: The file.
        name: Of the model, for people.
        licence: Its name; "" unknown.

    Raises:
        PipelineError: A value does not fit 16 bits, or what was written is not what was meant.
    """
    if target.exists():
        return
    plan = plan_file(folder, kind)
    with written_whole(target) as temporary:
        _write(temporary, plan, kind, name, licence)
        _compare(plan, temporary, kind)


def _write(target: Path, plan: Plan, kind: str, name: str, licence: str) -> None:
    writer = GGUFWriter(target, plan.shape.architecture)
    writer.add_type("model")
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(QUANTIZATION_VERSION)
    for method, value in plan.shape.values.items():
        getattr(writer, method)(value)
    _add_vocabulary(writer, plan.vocabulary)
    if (factors := plan.shape.rope_factors) is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for entry, gguf_name, stored in plan.tensors:
        size = quant_shape_to_byte_shape(entry.shape, stored)
        writer.add_tensor_info(gguf_name, size, np.dtype(np.uint8), prod(size), stored)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for entry, gguf_name, stored in track(plan.tensors, f"writing GGUF {kind}"):
            rows = interleaved(_values(entry), plan.shape.heads(gguf_name))
            writer.write_tensor_data(_stored(rows, stored, entry.name))
    finally:
        writer.close()


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.rule)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for name, token in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def _values(entry: Entry, start: int = 0, stop: int | None = None) -> Array:
    """A tensor of the model, or some of its rows."""
    with safe_open(entry.file, framework="pt") as source:
        rows = source.get_slice(entry.name)[start:stop]
    return rows.float().numpy()  # type: ignore[no-any-return]


def _stored(rows: Array, stored: GGMLQuantizationType, name: str) -> NDArray[np.uint8]:
    """Values as the file's bytes."""
    with np.errstate(over="ignore"):
        packed = quantize(np.ascontiguousarray(rows), stored)
    largest = float(np.abs(rows).max(initial=0))
    limit = float(np.finfo(np.float16).max) * (127 if stored is Q8 else 1)  # q8_0: of its scale
    if stored is not F32 and not largest <= limit:
        raise PipelineError(f"{name} reaches {largest:.3g}, more than 16 bits hold", LEAVE_OUT)
    return packed.view(np.uint8)  # type: ignore[no-any-return]


def _compare(plan: Plan, file: Path, kind: str) -> None:
    """Read the file back and compare it with the model's tensors.

    Raises:
        PipelineError: A tensor is not what it was.
    """
    reader = GGUFReader(file)
    found = {tensor.name: tensor for tensor in reader.tensors}
    wanted = {name for _, name, _ in plan.tensors}
    wanted |= {ROPE_FACTORS} if plan.shape.rope_factors is not None else set()
    if wanted != found.keys():
        odd = ", ".join(sorted(wanted ^ found.keys())[:3])
        raise PipelineError(f"{file.name} and the model differ in tensors: {odd}", LEAVE_OUT)
    for entry, name, stored in track(plan.tensors, f"reading GGUF {kind} back"):
        heads, count = plan.shape.heads(name), entry.shape[0]
        size = count if heads else PIECE  # rows that change places can't be told apart piecewise
        for start in range(0, count, size):
            rows = _values(entry, start, start + size)
            read = dequantize(found[name].data[start : start + size], stored)
            read = halved(np.asarray(read, dtype=np.float32).reshape(rows.shape), heads)
            off = np.abs(read - (rows.astype(np.float16) if stored is F16 else rows))
            if not bool((off <= allowed(rows, stored)).all()):
                raise PipelineError(
                    f"{name} of {file.name} is off by {float(off.max()):.3g} from {entry.name}",
                    "Look at the disk, then run again; if it stays so, " + LEAVE_OUT.lower(),
                )


def allowed(rows: Array, stored: GGMLQuantizationType) -> Array | float:
    """How far a stored value may lie from its own: nothing, or for q8_0 about half a step.

    A step is a 127th of the largest value of 32; half of it is lost by rounding to it, and a 16th
    of it by keeping it in 16 bits.
    """
    if stored is not Q8:
        return 0.0
    largest = np.abs(rows).reshape(*rows.shape[:-1], -1, BLOCK).max(axis=-1)
    room = largest / 127 * (0.5 + 127 / 2**11 + 1e-3) + 127 * 2**-25
    return np.repeat(room, BLOCK, axis=-1).astype(np.float32)
