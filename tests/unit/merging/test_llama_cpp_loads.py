"""GGUF files in llama.cpp itself, where llama-cpp-python is installed (`pip install .[reference]`;
it compiles llama.cpp, which takes minutes and a C++ compiler)."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, StableLmConfig

from tests.unit.merging.test_gguf_export import (
    LLAMA3,
    TEXT,
    export,
    make_model,
)

llama_cpp = pytest.importorskip("llama_cpp")

SHAPES = {
    "llama": (LlamaConfig, {}),
    "llama with scaled positions": (LlamaConfig, {"rope_parameters": LLAMA3}),
    "llama with biases": (LlamaConfig, {"attention_bias": True}),
    "stablelm": (StableLmConfig, {"partial_rotary_factor": 0.25, "num_key_value_heads": 4}),
    "stablelm with biases": (StableLmConfig, {"use_qkv_bias": True, "num_key_value_heads": 4}),
}


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
@pytest.mark.parametrize("name", list(SHAPES))
def test_llama_cpp_computes_the_same_tokens_and_logits(tmp_path, name, kind):
    config, shape = SHAPES[name]
    folder = make_model(tmp_path / "model", config, **shape)
    ids = AutoTokenizer.from_pretrained(folder).encode(TEXT)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    loaded = llama_cpp.Llama(
        str(export(folder, kind)), n_ctx=128, logits_all=True, verbose=False, n_threads=1
    )
    assert loaded.tokenize(TEXT.encode(), add_bos=True, special=True) == ids
    loaded.eval(ids)
    found = np.array(loaded.scores[: len(ids)])
    tolerance = {"f16": 0.01, "q8_0": 0.05}[kind]  # its own sums are in 16 bit, weights in 8
    assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)
