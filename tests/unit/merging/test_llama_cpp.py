"""GGUF files of every family in llama.cpp itself (package xllamacpp)."""

import json
import shutil
import urllib.request

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.convert_slow_tokenizer import generate_merges
from transformers.models.cohere.tokenization_cohere import CohereTokenizer
from transformers.models.gemma.tokenization_gemma import GemmaTokenizer
from transformers.models.gpt_neox.tokenization_gpt_neox import GPTNeoXTokenizer
from transformers.models.llama.tokenization_llama import LlamaTokenizer
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

from tasks.core.models.traits.model_traits import ModelTraits
from tasks.merging.gguf import export as gguf_file
from tasks.merging.gguf.families.registry import FAMILIES as EXPORTED
from tests.unit.base.families import FAMILIES
from tests.unit.merging.test_gguf_export import LLAMA3, SHAPE, TEXT, make_tokenizer

xllamacpp = pytest.importorskip("xllamacpp")

WIDE = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}  # blocks have 256 values
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.5,
    "original_max_position_embeddings": 256,  # the server's shortest context
    "short_factor": [1 + i / 10 for i in range(16)],
    "long_factor": [2.0] * 16,
}
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
GEMMA = {"query_pre_attn_scalar": 64, "sliding_window": 8}
CASES = {
    "llama": ("llama", {}),
    "llama with scaled positions": ("llama", {"rope_parameters": LLAMA3}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with linear scaling": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "mistral": ("mistral", {}),
    "mixtral": ("mixtral", {}),
    "granite": (
        "granite",
        {"embedding_multiplier": 3.0, "attention_multiplier": 0.2}
        | {"residual_multiplier": 0.5, "logits_scaling": 2.0},
    ),
    "smollm3": ("smollm3", {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]}),
    "qwen2": ("qwen2", {}),
    "qwen2 with yarn": ("qwen2", {"rope_parameters": YARN | {"rope_theta": 1e4}}),
    "qwen3": ("qwen3", {}),
    "qwen3_moe": ("qwen3_moe", {"norm_topk_prob": True}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", GEMMA),
    "gemma3_text": ("gemma3_text", GEMMA | {"num_hidden_layers": 6}),
    "phi": ("phi", {}),
    "phi3": ("phi3", {}),
    "phi3 with long factors": (
        "phi3",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 256}
        | {"max_position_embeddings": 512},
    ),
    "olmo2": ("olmo2", {}),
    "gpt_bigcode": ("gpt_bigcode", {"n_embd": 256}),
    "starcoder2": ("starcoder2", {}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_neox in sequence": ("gpt_neox", {"use_parallel_residual": False}),
    "cohere": ("cohere", {}),
    "stablelm": ("stablelm", {"partial_rotary_factor": 0.25, "num_key_value_heads": 4}),
    "stablelm 2": (
        "stablelm",
        {"qk_layernorm": True, "use_parallel_residual": True, "use_qkv_bias": True},
    ),
}
SMALL = {"vocab_size": 320, "pad_token_id": None}
QUANTIZED = ("llama", "gemma2", "gpt_neox", "phi3")  # separate and fused projections, tied head


def make(folder, family, **options):
    """A random model whose biases and norms matter, and whose head is not its own input."""
    torch.manual_seed(0)
    known = AutoConfig.for_model(family).to_dict()
    shape = {name: value for name, value in (SHAPE | WIDE).items() if name in known}
    extra = {n: v for n, v in FAMILIES[family].items() if n != "n_embd"}
    config = AutoConfig.for_model(family, **shape | extra | SMALL | options)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    unit_offset = family.startswith("gemma")
    for name, tensor in model.named_parameters():
        if tensor.ndim == 1:
            mean = float("norm" in name or "ln_" in name) - unit_offset
            torch.nn.init.normal_(tensor, mean=max(0.0, mean), std=0.1)
        else:
            embedding = "embed" in name or "wte" in name
            torch.nn.init.normal_(tensor, std=0.03 if embedding else 0.08)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def expected(folder, ids, banned, steps=6):
    """Greedy tokens, and the log-probabilities before each."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids, scores = list(ids), []
    with torch.inference_mode():
        for _ in range(steps):
            row = model(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
            scores.append(row.numpy().copy())
            row[banned] = -torch.inf
            ids.append(int(row.argmax()))
    return ids[-steps:], scores


def serve(file):
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.port = 64, 1, 0
    params.warmup = params.fit_params = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = 0
    return xllamacpp.Server(params)


def found(file, ids, banned, steps=6):
    request = {
        "prompt": ids,
        "n_predict": steps,
        "temperature": 0,
        "n_probs": 320,
        "logit_bias": [[i, -1000] for i in banned],
    }
    answer = serve(file).handle_completions(request)
    content = answer["choices"][0]["logprobs"]["content"]
    scores = [{e["id"]: e["logprob"] for e in step["top_logprobs"]} for step in content]
    return [step["id"] for step in content], scores


def export(folder, kind, traits=None):
    target = folder.parent / f"{folder.name}-{kind}.gguf"
    gguf_file.write(
        folder, kind, target, name="tiny", licence="MIT", traits=traits or ModelTraits()
    )
    return target


def differences(scores, measured):
    """Of the log-probabilities of all likely tokens after the prompt."""
    return [abs(measured[0][i] - scores[0][i]) for i in range(320) if scores[0][i] > -10]


@pytest.mark.parametrize("name", list(CASES))
def test_llama_cpp_computes_the_same(tmp_path, name):
    family, options = CASES[name]
    folder = make(tmp_path / "model", family, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode(TEXT)[:20]
    # the server reports no token that ends within a character
    banned = [i for i in range(320) if i in {0, 257} or "�" in tokenizer.decode([i])]
    banned += list(range(len(tokenizer), 320))
    tokens, scores = expected(folder, ids, banned)
    greedy, measured = found(export(folder, "f16"), ids, banned)
    assert max(differences(scores, measured)) < 0.05
    clear = [np.diff(np.sort(np.delete(row, banned))[-2:])[0] > 0.05 for row in scores]
    same = clear.index(False) if False in clear else len(clear)  # a tie may end either way
    assert greedy[:same] == tokens[:same]
    if name in QUANTIZED:
        _, measured = found(export(folder, "q8_0"), ids, banned)
        assert max(differences(scores, measured)) < 0.5
        _, measured = found(export(folder, "q4_k_m"), ids, banned)
        pairs = np.array([(measured[0][i], scores[0][i]) for i in range(320)])
        assert np.corrcoef(pairs.T)[0, 1] > 0.9


def test_every_exported_family_is_computed_by_llama_cpp():
    assert {family.model_type for family in EXPORTED} == {family for family, _ in CASES.values()}


CORPUS = [
    TEXT,
    "return self.value " * 9,
    "for i in range(10):\n        print(i)\n",
    "naïve café été ",
]
TEXTS = {
    "code": "def add(a, b):\n\treturn a + b  # 12345 it's naïve 日本 🙂\r\n\r\n\n  x=1;;\n",
    "blanks": " a  b    c        d \n \n\n   ",
    "control tokens": "<|im_start|>user\nhello<|im_end|>\n<|im_start|> x",
    "composed": "café naïve",
}
DECOMPOSED = "cafe\u0301 nai\u0308ve"
CONTROL = ["<|im_start|>", "<|im_end|>"]


def byte_level(model_class):
    """A tokenizer of a class of transformers, with merges learned from CORPUS."""
    empty = model_class(vocab={"a": 0}, merges=[]).backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.normalizer = empty.pre_tokenizer, empty.normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=310, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"]
    )
    bpe.train_from_iterator(CORPUS, trainer)
    learned = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    end = "<|endoftext|>"
    return model_class(
        vocab=learned["vocab"], merges=merges, eos_token=end, bos_token=end, unk_token=end
    )


def pieces(model_class):
    """A SentencePiece tokenizer of a class of transformers."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=150))
    learned = bpe.get_vocab()
    special = ["<unk>", "<s>", "</s>"]
    tokens = [*special, *(f"<0x{i:02X}>" for i in range(256))]
    tokens += [t for t in sorted(learned, key=learned.get) if t not in tokens]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = generate_merges(vocab, {t: -i for t, i in vocab.items()}, skip_tokens=special)
    return model_class(
        vocab=vocab, merges=merges, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def tokenizer_server(folder, tokenizer):
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    rows = len(tokenizer)
    config = LlamaConfig(**SHAPE | {"vocab_size": rows, "num_hidden_layers": 1})
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    for file in (folder / "tokenizer").iterdir():
        shutil.copyfile(file, folder / file.name)
    return serve(export(folder, "f16"))


def post(server, path, content):
    request = urllib.request.Request(
        f"{server.listening_address}/{path}",
        json.dumps(content).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


TOKENIZERS = {
    "qwen2": lambda: byte_level(Qwen2Tokenizer),
    "gpt_neox": lambda: byte_level(GPTNeoXTokenizer),
    "cohere": lambda: byte_level(CohereTokenizer),
    "llama": lambda: pieces(LlamaTokenizer),
    "gemma": lambda: pieces(GemmaTokenizer),
}


@pytest.mark.parametrize("kind", list(TOKENIZERS))
def test_llama_cpp_splits_text_like_the_tokenizer(tmp_path, kind):
    tokenizer = TOKENIZERS[kind]()
    tokenizer.add_special_tokens({"additional_special_tokens": CONTROL})
    tokenizer.chat_template = "{{ messages }}" if kind == "llama" else None
    server = tokenizer_server(tmp_path, tokenizer)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = TEXTS if kind in {"qwen2", "gpt_neox", "cohere"} else TEXTS | {"decomposed": DECOMPOSED}
    for name, text in texts.items():
        chat = CONTROL[0] + text  # llama's chats begin with a control token
        content = chat if kind == "llama" else text
        request = {"content": content, "add_special": True, "parse_special": True}
        assert post(server, "tokenize", request)["tokens"] == loaded.encode(content), name
