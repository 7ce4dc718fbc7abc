"""Fixtures that several kinds of tests share: a tiny model folder and a home of its own."""

import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from benchmarks.random_model import SMALL_SHAPE

# under nohup and in background jobs of scripts, these are ignored, and stay so in child processes
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

# a busy machine takes longer over an example than the 0.2 s that hypothesis allows
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

REPOSITORY = Path(__file__).resolve().parents[1]


def ingested_row(number: int, **fields: Any) -> dict[str, Any]:
    """A row of the stage `ingest` (`row_schema.ROWS`); fields by keyword."""
    return {
        "row_id": f"{number:032x}",
        "instruction": f"Task number {number}",
        "input": "",
        "output": f"answer_number({number})",
        "kind": "file",
        "source": "s",
        "project": "p",
        "path": "a.jsonl",
        "line": number,
        "version": "",
        "licence": "MIT",
        "licence_evidence": "",
        "conversation": "",
        "language": "",
        "symbol": "",
        "date": "",
        "repeats": 1,
        **fields,
    }


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A folder with a StableLM model of 0.2 M random weights and a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, StableLmConfig

    folder = tmp_path_factory.mktemp("tiny_model")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator([Path(__file__).read_text()], trainer)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, bos_token=end).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = StableLmConfig(
        **SMALL_SHAPE, bos_token_id=0, eos_token_id=0, partial_rotary_factor=0.25
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture
def small_profile(tiny_model, tmp_path, monkeypatch) -> Path:
    """A profile that runs every stage in seconds, with FINETUNE_HOME in a temporary folder."""
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    return write_small_profile(tmp_path / "small.yaml", tiny_model)


def write_small_profile(path: Path, model: Path) -> Path:
    """Write the small profile: the tiny model on the sample data, four steps."""
    path.write_text(
        f"""# the tiny model on the sample data
hardware: {{device: cpu}}
base: {{path: {model}, licence: Apache-2.0}}
ingest:
  sources: [{{kind: files, name: sample, path: {REPOSITORY / "data/sample"}, licence: CC0-1.0}}]
prompt: {{validation_share: 0.2, test_share: 0.2}}
tokenize: {{max_tokens: 512, window_tokens: 512, min_characters_per_token: 0}}
train: {{max_steps: 4, warmup_steps: 1, batch_tokens: 512}}
evaluate: {{humaneval_problems: 0, probe_problems: 2, samples: 1, max_new_tokens: 8}}
"""
    )
    return path
