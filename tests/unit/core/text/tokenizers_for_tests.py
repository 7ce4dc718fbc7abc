"""Small tokenizers of the kinds that models have."""

import json
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = ["def add(a, b):\n    return a + b\n\nuser assistant system What is it? Hello there."] * 9
BYTES = [f"<0x{n:02X}>" for n in range(256)]


def byte_level(special: list[str], **more: Any) -> PreTrainedTokenizerFast:
    """As Qwen, Llama 3, Phi-4: byte-level BPE."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **more)


def _sentencepiece_bpe(special: list[str]) -> Tokenizer:
    """BPE over texts with ▁ for spaces, and bytes for what it doesn't know."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    spec = json.loads(trained.to_str())["model"]
    words = [*special, *BYTES, *spec["vocab"]]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in spec["merges"]]
    return Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )


def _finished(
    made: Tokenizer, special: list[str], bos: str, rstrip: tuple[str, ...] = (), **more: Any
) -> PreTrainedTokenizerFast:
    made.add_special_tokens(
        [AddedToken(t, normalized=False, special=True, rstrip=t in rstrip) for t in special]
    )
    made.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, made.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=bos, **more)


def legacy_llama(special: list[str], **more: Any) -> PreTrainedTokenizerFast:
    """As Llama 2, CodeLlama, Phi-3, Codestral: ▁ is put before each text and after each control
    token."""
    special = ["<unk>", "<s>", "</s>", *special]
    made = _sentencepiece_bpe(special)
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return _finished(made, special, "<s>", eos_token=more.pop("eos_token", "</s>"), **more)


def metaspace(special: list[str], **more: Any) -> PreTrainedTokenizerFast:
    """As Mistral: ▁ is put before the text alone."""
    special = ["<unk>", "<s>", "</s>", *special]
    made = _sentencepiece_bpe(special)
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return _finished(made, special, "<s>", eos_token="</s>", **more)


def gemma(special: list[str], **more: Any) -> PreTrainedTokenizerFast:
    """As Gemma: ▁ for spaces, nothing put before."""
    special = ["<unk>", "<bos>", "<eos>", *special]
    made = _sentencepiece_bpe(special)
    made.normalizer = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence(steps)
    return _finished(made, special, "<bos>", eos_token="<eos>", **more)


def unigram(special: list[str], **more: Any) -> PreTrainedTokenizerFast:
    """A Unigram model with ▁ before each text, as T5 and XGLM have."""
    special = ["<unk>", "<s>", "</s>", *special]
    letters = sorted({c for text in CORPUS for c in text.replace(" ", "▁")} | {"▁"})
    words = [*((t, 0.0) for t in special), *((b, -20.0) for b in BYTES)]
    words += [(letter, -5.0) for letter in letters] + [("▁return", -6.0), ("▁a", -3.0)]
    made = Tokenizer(models.Unigram(words, unk_id=0, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    made.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace("▁", prepend_scheme="always")]
    )
    return _finished(made, special, "<s>", eos_token="</s>", **more)


SENTENCEPIECE = {
    "legacy Llama": legacy_llama,
    "Metaspace": metaspace,
    "Gemma": gemma,
    "Unigram": unigram,
}
