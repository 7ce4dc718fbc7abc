"""The table of architectures against transformers' own modules."""

import json
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tasks.core.models.architectures import registry
from tasks.core.models.architectures.protocol import Architecture
from tasks.core.models.architectures.registry import ARCHITECTURES, architecture_of
from tasks.core.models.memory_estimate import DecoderShape

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": None,  # the default of some is a token outside of this vocabulary
}
FAMILIES = pytest.mark.parametrize("known", ARCHITECTURES, ids=lambda known: known.model_type)


@FAMILIES
def test_layer_has_the_class_and_the_linear_layers_of_the_table(
    known: Architecture, tmp_path: Path
) -> None:
    config = AutoConfig.for_model(known.model_type, **SHAPE)
    config.save_pretrained(tmp_path)
    shape = DecoderShape.read(tmp_path)
    assert shape is not None
    layer = getattr(AutoModelForCausalLM.from_config(config).base_model, known.layers)[0]
    assert type(layer).__name__ == known.layer.class_name
    found = Counter(
        (name.rpartition(".")[2], module.in_features, module.out_features)
        for name, module in layer.named_modules()
        if isinstance(module, torch.nn.Linear)
    )
    linears = known.layer.linear_layers
    assert Counter((linear.name, *shape.features(linear)) for linear in linears) == found


def test_shape_of_a_composite_model_is_that_of_its_text_model(tmp_path: Path) -> None:
    text = {"model_type": "mistral", **SHAPE}
    for given, known in ((text, True), ({"model_type": "gemma3_text"}, False)):
        (tmp_path / "config.json").write_text(json.dumps({"text_config": given}))
        shape = DecoderShape.read(tmp_path)
        assert (shape is not None) == known
        assert shape is None or (shape.hidden, shape.architecture.model_type) == (64, "mistral")


def test_every_entry_of_the_tables_files_is_listed() -> None:
    files = {path.stem for path in Path(registry.__file__).parent.glob("*.py")}
    modules = [import_module(f"{registry.__package__}.{stem}") for stem in files - {"__init__"}]
    entries = [
        value
        for module in modules
        for value in vars(module).values()
        if type(value) is Architecture
    ]
    listed = {known.model_type for known in ARCHITECTURES}
    assert {entry.model_type for entry in entries} == listed
    assert len(listed) == len(ARCHITECTURES)


def test_type_that_is_not_in_the_table_has_no_architecture() -> None:
    assert architecture_of("mamba") is None


def test_table_is_imported_without_heavy_packages() -> None:
    script = "import sys, tasks.core.models.architectures.registry; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert not {"torch", "transformers", "pydantic", "pyarrow", "numpy"}.intersection(modules)
