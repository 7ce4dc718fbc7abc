"""The original recipe, TRL's SFTTrainer and unsloth on synthetic rows, measured alike.

In: a 4-bit model, rows of token ids. Out: numbers by name. All train by transformers' Trainer; a
callback takes the time of some steps and then the GPU's own time of a few more.
"""

import itertools
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from benchmarks.training import shape
from tasks.core.models.device import GIB, free_gpu, reset_peak

Rows = list[list[int]]


class Meter(TrainerCallback):  # type: ignore[misc]
    """Times steps after some that warm up, profiles a few batches, then ends the training.

    Args:
        warm: Optimizer steps before anything is measured.
        timed: Optimizer steps whose wall time counts.
        profiled: Batches whose GPU time counts; a profile of many takes minutes to add up.
    """

    def __init__(self, warm: int, timed: int, profiled: int) -> None:
        self.warm, self.timed, self.profiled = warm, timed, profiled
        self.seconds = self.busy_s = 0.0
        self._began = 0.0
        self._left: int | None = None
        self._profiler: Any = None

    def on_substep_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer after each batch but the last of a step."""
        self._count(control)

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer after each optimizer step."""
        self._count(control)
        if state.global_step == self.warm:
            _wait()
            self._began = time.perf_counter()
        if state.global_step == self.warm + self.timed:
            _wait()
            self.seconds = time.perf_counter() - self._began
            self._profile()

    def _profile(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        self._left = self.profiled
        if torch.cuda.is_available():
            self._profiler = profile(activities=[ProfilerActivity.CUDA])
            self._profiler.__enter__()

    def _count(self, control: Any) -> None:
        """One more batch was run."""
        if self._left is None:
            return
        self._left -= 1
        if self._left == 0:
            self._end()
            control.should_training_stop = True

    def _end(self) -> None:
        if self._profiler is None:
            return
        _wait()
        self._profiler.__exit__(None, None, None)
        events = self._profiler.key_averages()
        self.busy_s = sum(event.self_device_time_total for event in events) * 1e-6

    def result(self, tokens: Sequence[int], batches_a_step: int) -> dict[str, Any]:
        """Numbers by name, from the real tokens of each batch."""
        first = self.warm * batches_a_step
        last = first + self.timed * batches_a_step
        timed, profiled = sum(tokens[first:last]), sum(tokens[last : last + self.profiled])
        cuda = torch.cuda.is_available()
        return {
            "tokens/s": timed / self.seconds,
            "tokens a step": timed / self.timed,
            "busy ms": 1e3 * self.busy_s * 4096 / max(1, profiled),
            "allocated": torch.cuda.max_memory_allocated() / GIB if cuda else 0.0,
            "reserved": torch.cuda.max_memory_reserved() / GIB if cuda else 0.0,
        }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rows_of(batch_tokens: int, steps: int, window_tokens: int = 4096) -> list[Rows]:
    """The same rows for everyone, a list a step, about `batch_tokens` each."""
    windows = shape.packed_windows(window_tokens)
    result = []
    for _ in range(steps):
        rows: Rows = []
        for window in itertools.islice(windows, max(1, batch_tokens // window_tokens)):
            rows += [part.tolist() for part in np.split(window.input_ids, window.cu_seqlens[1:-1])]
        result.append(rows)
    return result


def lora() -> Any:
    """The recipe's adapter."""
    from peft import LoraConfig

    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return LoraConfig(
        r=8, lora_alpha=32, lora_dropout=0.05, target_modules=names, task_type="CAUSAL_LM"
    )


def arguments(folder: str, rows_a_step: int, steps: int) -> dict[str, Any]:
    """The recipe's choices, by the names of transformers' TrainingArguments."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": rows_a_step,
        "warmup_steps": 4,
        "max_steps": steps,
        "learning_rate": 2e-5,
        "weight_decay": 0.01,
        "optim": "paged_adamw_8bit" if torch.cuda.is_available() else "adamw_torch",
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
        "use_cpu": not torch.cuda.is_available(),
    }


def run_recipe(model: Any, steps: list[Rows], meter: Meter) -> dict[str, Any]:
    """The original script's way: k-bit preparation, peft and the Trainer, row by row.

    Every step has as many rows as the first one, because the Trainer has one setting for all.
    """
    from peft import get_peft_model, prepare_model_for_kbit_training
    from transformers import Trainer, TrainingArguments

    model.set_attn_implementation("sdpa")
    model = get_peft_model(prepare_model_for_kbit_training(model), lora())
    size = len(steps[0])
    rows = list(itertools.chain.from_iterable(steps))
    data = [{"input_ids": torch.tensor(r), "labels": torch.tensor(r)} for r in rows]
    with tempfile.TemporaryDirectory() as folder:
        known = TrainingArguments.__dataclass_fields__
        wanted = arguments(folder, size, len(steps))
        chosen = TrainingArguments(**{k: v for k, v in wanted.items() if k in known})
        Trainer(model=model, args=chosen, train_dataset=data, callbacks=[meter]).train()
    return meter.result([len(r) for r in rows], size)


def run_trl(model: Any, steps: list[Rows], meter: Meter, window_tokens: int) -> dict[str, Any]:
    """TRL's SFTTrainer with its own packing, 4-bit LoRA, as many windows a step as we take."""
    import trl

    model.set_attn_implementation("sdpa")
    result = _sft(model, steps, meter, window_tokens, peft_config=lora())
    return result | {"version": trl.__version__}


def run_unsloth(kind: str, steps: list[Rows], meter: Meter, window_tokens: int) -> dict[str, Any]:
    """unsloth's model and checkpointing in TRL's SFTTrainer, without dropout.

    Args:
        kind: Model type; the weights are random, written to a folder because unsloth loads files.
        steps: Rows of each optimizer step.
        meter: Callback that takes the times.
        window_tokens: Longest packed window.
    """
    from unsloth import FastLanguageModel  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape.write_model(folder, kind)
        tokenizer(folder).save_pretrained(folder)
        model, _ = FastLanguageModel.from_pretrained(
            str(folder),
            max_seq_length=window_tokens,
            dtype=torch.bfloat16,
            load_in_4bit=True,
            local_files_only=True,
        )
    free_gpu()
    reset_peak()
    adapter = lora()
    model = FastLanguageModel.get_peft_model(
        model,
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=0.0,
        target_modules=sorted(adapter.target_modules),
        use_gradient_checkpointing="unsloth",
    )
    result = _sft(model, steps, meter, window_tokens)
    return result | {"version": metadata.version("unsloth")}


def _sft(
    model: Any, steps: list[Rows], meter: Meter, window_tokens: int, **more: Any
) -> dict[str, Any]:
    """Train with TRL's SFTTrainer on packed windows."""
    import trl
    from datasets import Dataset

    rows = list(itertools.chain.from_iterable(steps))
    batch_tokens = sum(len(r) for r in steps[0])
    size = max(1, round(batch_tokens / window_tokens))
    with tempfile.TemporaryDirectory() as folder:
        wanted = arguments(folder, size, len(steps)) | {
            "packing": True,
            "packing_strategy": "bfd",
            "max_length": window_tokens,
            "bf16": torch.cuda.is_available(),
            "dataset_kwargs": {"skip_prepare_dataset": False},
        }
        known = trl.SFTConfig.__dataclass_fields__
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(**{k: v for k, v in wanted.items() if k in known}),
            train_dataset=Dataset.from_dict({"input_ids": rows}),
            processing_class=tokenizer(Path(folder)),
            callbacks=[meter],
            **more,
        )
        lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
        trainer.train()
    return meter.result(lengths, size)


def tokenizer(folder: Path) -> Any:
    """One that TRL can look at; the rows are ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "a": 1}, unk_token="a"))
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=end, pad_token=end)
