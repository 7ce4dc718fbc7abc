"""Stage `base`: settings -> tokenizer/, weights/, licence.json and checks.json.

Weights are hard-linked to their source, so that a base model of gigabytes exists once. Only
safetensors are accepted, and a model's own code runs only if `base.trust_remote_code` is set.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from transformers import AutoConfig, GenerationConfig

from tasks.base.hub import download
from tasks.base.licence import licence_files, licence_of, write_licence
from tasks.base.model_folder import (
    CONFIG_FILES,
    count_parameters,
    model_files,
    read_json,
    weight_files,
)
from tasks.base.model_report import CHECKS_FILE, examine
from tasks.base.model_source import ModelSource, locate
from tasks.base.tokenizer import adopt_tokenizer, check_tokenizer, write_limits
from tasks.core.errors import PipelineError
from tasks.core.models.model_folder import link_or_copy
from tasks.core.models.pretrained import quiet
from tasks.core.models.trusted_code import trust
from tasks.core.settings.config import View
from tasks.core.stage import Summary, Work


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """See the module."""
    settings = config.base
    source = locate(settings.hub_id, settings.revision, settings.path, settings.gguf)
    tokenizer, weights = work.out / "tokenizer", work.out / "weights"
    tokenizer.mkdir()
    weights.mkdir()
    with quiet():
        if source.gguf:
            name, evidence, files = _from_gguf(source, weights, tokenizer, settings.dtype)
        else:
            code = settings.trust_remote_code
            folder = download(*source.hub, code) if source.hub else source.folder
            assert folder is not None  # the only remaining case
            name, evidence, files = _from_folder(folder, weights, tokenizer, code)
    if settings.licence:
        name, evidence = settings.licence, "setting base.licence"
    write_licence(name, evidence, source.name, files, work.out)
    with quiet():
        hub = source.name if source.hub else ""
        traits, checks = examine(weights, tokenizer, hub, settings.trust_remote_code)
    traits.write(weights)
    text = json.dumps(checks, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (work.out / CHECKS_FILE).write_text(text, encoding="utf-8")
    limit = write_limits(read_json(weights / "config.json"), tokenizer)
    shards = [file for file in weight_files(weights) if file.suffix == ".safetensors"]
    parameters = sum(count_parameters(file) for file in shards)
    size_gib = sum(file.stat().st_size for file in shards) / 2**30
    line = f"{source.name}: {parameters / 1e6:,.0f} M parameters, {size_gib:.2f} GiB"
    return Summary(
        line if name else line + ", license unknown",
        metrics={"parameters": parameters, "weights_gib": size_gib, "model_max_tokens": limit},
    )


def _from_gguf(
    source: ModelSource, weights: Path, tokenizer: Path, dtype: str
) -> tuple[str, str, list[Path]]:
    """Convert a GGUF file; returns the license's name, its evidence and its files."""
    from tasks.base.gguf_conversion import convert, licence_in

    assert source.gguf is not None
    convert(source.gguf, weights, tokenizer, dtype)
    check_tokenizer(tokenizer)
    name, evidence = licence_in(source.gguf), "header of the GGUF file"
    if not name:
        name, evidence = licence_of(source.notes)
    return name, evidence, licence_files(source.notes)


def _from_folder(
    folder: Path, weights: Path, tokenizer: Path, code: bool
) -> tuple[str, str, list[Path]]:
    """Link and copy a model folder; returns the license's name, its evidence and its files."""
    files = model_files(folder, code)
    check_config(folder, code)
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            count_parameters(file)  # raises for an incomplete file
        link_or_copy(file, weights / file.name)
    for file in files:
        if file.name in CONFIG_FILES or file.suffix == ".py":
            shutil.copyfile(file, weights / file.name)
    if not (weights / "generation_config.json").exists():
        known = AutoConfig.from_pretrained(folder, trust_remote_code=code)
        GenerationConfig.from_model_config(known).save_pretrained(weights)
    if code:
        trust(weights)
    adopt_tokenizer(folder, tokenizer)
    return *licence_of(files), licence_files(files)


def check_config(folder: Path, code: bool) -> None:
    """Check that transformers or trusted code supports the model, and that it is not quantized.

    Raises:
        PipelineError: It fails a check.
    """
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    try:
        if not (code and config.get("auto_map")):
            AutoConfig.for_model(str(kind))
    except ValueError as error:
        raise PipelineError(
            f"transformers has no model of type {kind!r}, and the model's own code is not run",
            "Use a newer revision whose type transformers has, or, if you trust its author, set "
            "base.trust_remote_code to true.",
        ) from error
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method", "?") if isinstance(quantized, dict) else "?"
        raise PipelineError(
            f"the base model is quantized already ({method})",
            "Use its 16-bit weights: training quantizes them, and merging needs them unquantized.",
        )
