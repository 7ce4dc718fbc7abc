"""A base model with the exact shape of stable-code-3b and random weights, and a byte-level
tokenizer.

Speed and memory depend on the shape, not on the values, so this replaces the real weights where
they are not available.

    python -m benchmarks.random_model FOLDER
"""

import sys
from collections.abc import Iterator
from pathlib import Path

VOCABULARY = 50_304
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 16_384,
    "partial_rotary_factor": 0.25,
    "rope_theta": 1_000_000,
    "tie_word_embeddings": False,
    "use_qkv_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
SMALL_SHAPE: dict[str, object] = {  # for tests, and where only the pipeline matters
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
}


def make(folder: Path, shape: dict[str, object] | None = None) -> None:
    """Write config, bf16 safetensors and tokenizer into `folder`.

    Args:
        folder: Created if missing; unchanged if it already holds a model.
        shape: Arguments of `StableLmConfig` that differ from stable-code-3b.
    """
    import torch
    from transformers import AutoModelForCausalLM, StableLmConfig

    if (folder / "config.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    config = StableLmConfig(**{**SHAPE, **(shape or {})})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tokenizer(folder, int(config.vocab_size))
    model.save_pretrained(folder)


def tokenizer(folder: Path, vocabulary: int) -> None:
    """Train a byte-level BPE tokenizer on the standard library and write it into `folder`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_sources(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    fast.save_pretrained(folder)


def _sources() -> Iterator[str]:
    import sysconfig

    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        yield path.read_text(encoding="utf-8", errors="ignore")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
