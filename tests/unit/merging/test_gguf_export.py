import importlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gguf import GGUFReader, TokenType, dequantize
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
    StableLmConfig,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tasks.core.errors import PipelineError
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.merging.gguf import export as gguf_file
from tasks.merging.gguf import rope
from tasks.merging.gguf import tokenizer as vocabulary
from tasks.merging.gguf.families import registry
from tasks.merging.gguf.families.protocol import GgufFamily, RowOrder
from tests.unit.merging.conftest import make_adapter

SHAPE = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
TEXT = "def add(a, b):\n    return a + b  # 12345 naïve 日本\n"


def make_tokenizer(folder, pre=None, added=()):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([TEXT, __doc__ or "", "return self.value " * 9], trainer)
    bpe.add_tokens(list(added))
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, bos_token=end).save_pretrained(
        folder
    )


def make_model(folder, config=LlamaConfig, **shape):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**(SHAPE | shape)), dtype=torch.bfloat16)
    for name, tensor in model.named_parameters():
        if tensor.ndim == 1:  # norms of ones and biases of zeros would hide a mistake
            torch.nn.init.normal_(tensor, mean=float("norm" in name), std=0.1)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def export(folder, kind="f16"):
    target = folder.parent / f"{folder.name}-{kind}.gguf"
    traits = ModelTraits.read(folder)
    gguf_file.write(folder, kind, target, name="tiny", licence="MIT", traits=traits)
    return target


def logits(folder, **options):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    with torch.inference_mode():
        return model(torch.arange(40, 80)[None]).logits


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_reads_the_same_llama_from_the_file(tmp_path, tied):
    folder = make_model(tmp_path / "model", tie_word_embeddings=tied)
    file = export(folder)
    found = logits(file.parent, gguf_file=file.name)
    torch.testing.assert_close(found, logits(folder), rtol=1e-5, atol=1e-5)


def test_transformers_reads_the_same_stablelm_from_the_file(tmp_path):
    folder = make_model(tmp_path / "model", StableLmConfig, use_qkv_bias=False)
    file = export(folder)
    found = logits(file.parent, gguf_file=file.name)
    torch.testing.assert_close(found, logits(folder), rtol=1e-5, atol=1e-5)


def test_transformers_reads_the_same_tokenizer_from_the_file(tmp_path):
    file = export(make_model(tmp_path / "model"))
    before = AutoTokenizer.from_pretrained(tmp_path / "model")
    after = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    assert after.encode(TEXT) == before.encode(TEXT)
    assert after.eos_token == "<|endoftext|>"


def fields(file):
    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


def test_file_names_every_hyper_parameter_of_stable_code(tmp_path):
    shape = {"rope_theta": 1e6, "partial_rotary_factor": 0.25, "num_key_value_heads": 4}
    found = fields(export(make_model(tmp_path / "model", StableLmConfig, **shape)))
    wanted = {
        "general.architecture": "stablelm",
        "general.license": "MIT",
        "stablelm.context_length": 128,
        "stablelm.embedding_length": 64,
        "stablelm.block_count": 2,
        "stablelm.feed_forward_length": 96,
        "stablelm.attention.head_count": 4,
        "stablelm.attention.head_count_kv": 4,
        "stablelm.rope.freq_base": 1e6,
        "stablelm.rope.dimension_count": 4,
        "stablelm.use_parallel_residual": False,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert found["stablelm.attention.layer_norm_epsilon"] == pytest.approx(1e-5)


def test_biases_of_q_and_k_are_reordered_like_their_rows(tmp_path):
    folder = make_model(tmp_path / "model", attention_bias=True)
    file = export(folder)
    there = {t.name: t.data for t in GGUFReader(file).tensors}
    bias = load_file(folder / "model.safetensors")["model.layers.0.self_attn.q_proj.bias"]
    halves = bias.float().reshape(4, 2, 8)
    np.testing.assert_array_equal(
        there["blk.0.attn_q.bias"], halves.transpose(1, 2).reshape(-1).numpy()
    )


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.sampled_from([(1, 2), (0, 1)]))
def test_an_order_of_rows_can_be_undone(heads, size, parts, axes):
    order, config = RowOrder("heads", parts, axes), SimpleNamespace(heads=heads)
    rows = np.arange(heads * parts * size * 2).reshape(-1, 2)
    assert (order.undo(order.apply(rows, config), config) == rows).all()


def test_llama3_factors_are_those_of_transformers():
    config = LlamaConfig(**SHAPE, rope_parameters=LLAMA3)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, device="cpu")
    plain = 500_000.0 ** -(torch.arange(0, 16, 2) / 16)
    found = torch.from_numpy(rope.llama3_factors(config.rope_parameters, 16))
    torch.testing.assert_close(found, plain / scaled, rtol=1e-5, atol=0)


def test_llama3_factors_are_in_the_file(tmp_path):
    file = export(make_model(tmp_path / "model", rope_parameters=LLAMA3))
    assert "rope_freqs.weight" in {t.name for t in GGUFReader(file).tensors}


def test_q8_0_is_half_the_size_and_within_its_step(tmp_path):
    folder = make_model(tmp_path / "model")
    file = export(folder, "q8_0")
    weight = load_file(folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].float()
    tensor = next(t for t in GGUFReader(file).tensors if t.name == "blk.0.ffn_up.weight")
    assert tensor.tensor_type.name == "Q8_0"
    off = np.abs(dequantize(tensor.data, tensor.tensor_type) - weight.numpy())
    step = weight.abs().reshape(96, -1, 32).amax(-1).repeat_interleave(32, 1).numpy() / 127
    assert (off <= step).all()
    assert off.max() > 0.3 * step.min()
    assert tensor.data.nbytes == weight.numel() * 34 / 32


def test_rows_that_are_no_multiple_of_the_q8_0_block_stay_f16(tmp_path):
    folder = make_model(tmp_path / "model", intermediate_size=100)
    file = export(folder, "q8_0")
    kinds = {t.name: t.tensor_type.name for t in GGUFReader(file).tensors}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")
    assert kinds["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_file_that_differs_from_the_model_is_detected(tmp_path, monkeypatch, kind):
    folder = make_model(tmp_path / "model")
    monkeypatch.setattr(RowOrder, "apply", lambda order, rows, config: rows)
    with pytest.raises(PipelineError, match=r"blk\.0\.attn_[qk]\.weight of .* is off by"):
        export(folder, kind)
    assert list(tmp_path.glob("*.gguf")) == []


def test_nan_in_the_file_is_a_difference(tmp_path, monkeypatch):
    folder, decode = make_model(tmp_path / "model"), gguf_file.decode
    monkeypatch.setattr(gguf_file, "decode", lambda *given: decode(*given) * math.nan)
    with pytest.raises(PipelineError, match="is off by inf"):
        export(folder)


def test_value_that_16_bits_cannot_hold_is_named(tmp_path):
    folder = make_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][3, 3] = 1e5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PipelineError, match=r"embed_tokens\.weight reaches 9\.98e\+04|1e\+05"):
        export(folder)


def test_same_model_gives_the_same_bytes_and_a_finished_file_is_kept(tmp_path):
    folder = make_model(tmp_path / "model")
    file = export(folder, "q8_0")
    content = file.read_bytes()
    file.write_bytes(b"finished by an earlier run")
    export(folder, "q8_0")
    assert file.read_bytes() == b"finished by an earlier run"
    file.unlink()
    assert export(folder, "q8_0").read_bytes() == content


def test_tokens_have_types_and_are_padded_to_the_embedding(tmp_path):
    make_tokenizer(tmp_path, added=["<fim>"])
    found = vocabulary.read_vocabulary(tmp_path, 320)
    assert len(found.tokens) == len(found.types) == 320
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert kinds["<|endoftext|>"] == TokenType.CONTROL
    assert kinds["<fim>"] == TokenType.USER_DEFINED
    assert kinds["a"] == TokenType.NORMAL
    assert kinds["[PAD319]"] == TokenType.UNUSED


def test_token_beyond_the_embedding_is_rejected(tmp_path):
    make_tokenizer(tmp_path)
    with pytest.raises(PipelineError, match=r"has a token 2\d\d and the embedding 100 rows"):
        vocabulary.read_vocabulary(tmp_path, 100)


PRE = pre_tokenizers
PRE_TOKENIZERS = {
    "gpt-2": PRE.ByteLevel(add_prefix_space=False),
    "smollm": PRE.Sequence(
        [PRE.Digits(individual_digits=True), PRE.ByteLevel(add_prefix_space=False)]
    ),
}


@pytest.mark.parametrize("rule", PRE_TOKENIZERS)
def test_pre_tokenizer_gets_its_name(tmp_path, rule):
    make_tokenizer(tmp_path, PRE_TOKENIZERS[rule])
    assert vocabulary.read_vocabulary(tmp_path, 320).pre_tokenizer == rule


def test_pre_tokenizer_without_a_name_is_rejected(tmp_path):
    make_tokenizer(tmp_path, PRE.ByteLevel(add_prefix_space=True))
    with pytest.raises(PipelineError, match="splits text by ByteLevel"):
        vocabulary.read_vocabulary(tmp_path, 320)


def test_bytes_beside_merges_that_are_not_sentencepiece_are_rejected(tmp_path):
    make_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["model"]["byte_fallback"] = True
    path.write_text(json.dumps(raw))
    with pytest.raises(PipelineError, match=r"does not merge \d+ of \d+ pairs|changes text by"):
        vocabulary.read_vocabulary(tmp_path, 320)


def test_bos_added_by_the_tokenizer_is_in_the_vocabulary(tmp_path):
    from tokenizers.processors import TemplateProcessing

    make_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = vocabulary.read_vocabulary(tmp_path, 320)
    assert (found.add_bos, found.add_eos) == (True, False)


def test_stage_writes_the_configured_files(stage):
    make_model(stage.root / "weights", intermediate_size=128)
    make_adapter(stage.root / "weights", stage.root / "adapter")
    make_tokenizer(stage.root / "tokenizer")
    summary = stage.run(strategy="base16", gguf=["f16", "q8_0"])
    names = {path.name for path in (stage.root / "out" / "gguf").glob("*.gguf")}
    assert names == {"model-f16.gguf", "model-q8_0.gguf"}
    assert "GGUF f16, q8_0" in summary.line


def test_unsupported_tokenizer_is_rejected_before_the_merge(stage):
    make_tokenizer(stage.root / "tokenizer")
    with pytest.raises(PipelineError, match="has a token 299 and the embedding 96 rows") as error:
        stage.run(gguf=["f16"])
    assert "merge.gguf" in error.value.remedy
    assert not (stage.root / "out-scratch").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "opt"}, "type opt"),
        ({"rope_parameters": DYNAMIC}, "rope_type dynamic"),
        ({"hidden_act": "relu"}, "hidden_act relu"),
    ],
)
def test_unsupported_model_is_rejected(tmp_path, change, word):
    folder = make_model(tmp_path / "model")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | change))
    with pytest.raises(PipelineError, match=word):
        gguf_file.check_exportable(folder, folder, ["f16"])


def test_model_in_several_shards_is_one_file(tmp_path):
    whole = make_model(tmp_path / "model")
    AutoModelForCausalLM.from_pretrained(whole, dtype="auto").save_pretrained(
        tmp_path / "cut", max_shard_size="20KB"
    )
    make_tokenizer(tmp_path / "cut")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 2
    before = {t.name: t.data for t in GGUFReader(export(whole)).tensors}
    after = {t.name: t.data for t in GGUFReader(export(tmp_path / "cut")).tensors}
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_every_family_is_listed():
    folder, found = Path(registry.__file__).parent, set()
    for path in folder.glob("*.py"):
        module = importlib.import_module(f"tasks.merging.gguf.families.{path.stem}")
        found |= {x.model_type for x in vars(module).values() if isinstance(x, GgufFamily)}
    assert found == {family.model_type for family in registry.FAMILIES}
