"""Facts of training.json in named groups; a field without an entry here is in the last group."""

from collections.abc import Mapping
from typing import Any

from tasks.core.text.durations import duration
from tasks.evaluation.report.format_values import scalar

GROUPS: dict[str, dict[str, str]] = {
    "Length": {
        "step": "optimizer steps",
        "total_steps": "optimizer steps planned",
        "warmup_steps": "warm-up steps",
        "learning_rate": "peak learning rate",
        "resumed_from": "resumed from step",
        "epoch": "full passes before the last one",
        "seconds": "time in steps",
        "skipped": "steps without a trained token",
        "overflowed": "steps beyond the range of float16",
    },
    "Data": {
        "start": "starts from",
        "tokens": "tokens seen",
        "trained": "tokens with loss",
        "tokens_per_step": "tokens per step",
        "batch_tokens": "tokens per step, setting",
        "rows_a_step": "rows per step, setting",
        "window_tokens": "longest window, tokens",
    },
    "Loss": {
        "first_loss": "first logged loss, nats per token",
        "last_loss": "last logged loss, nats per token",
    },
    "Adapter": {
        "trainable_parameters": "trained parameters",
        "all_parameters": "all parameters",
        "trainable_share": "share of trained parameters",
        "optimizer": "optimizer",
    },
    "Machine": {
        "device": "device",
        "dtype": "number format",
        "processes": "processes",
        "tokens_per_s": "tokens per second",
        "expected_tokens_per_s": "tokens per second, expected",
        "peak_vram_gib": "peak GPU memory, GiB",
        "expected_vram_gib": "peak GPU memory, expected, GiB",
        "load_vram_gib": "GPU memory of the base, GiB",
        "step_path": "training step",
        "attention": "attention",
        "kept_layers": "layers that keep activations",
    },
}
REST = "Other"
OPERATIONS = {"TorchOps": "PyTorch", "TritonOps": "Triton"}  # of the fast path


def training_facts(training: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(Group, [(name, value)]) of training.json, without nested and empty values."""
    found: dict[str, list[tuple[str, str]]] = {}
    known = {name for fields in GROUPS.values() for name in fields}
    rest = {n: n.replace("_", " ") for n in training if n not in known}
    for group, fields in {**GROUPS, REST: rest}.items():
        for name, label in fields.items():
            value = training.get(name)
            if not isinstance(value, (str, bool, int, float)):
                continue
            if name.endswith("vram_gib") and not value:
                continue  # there was no GPU
            found.setdefault(group, []).append((label, _shown(name, value)))
    return list(found.items())


def _shown(name: str, value: Any) -> str:
    if name == "seconds":
        return duration(value)
    if name.endswith("_share"):
        return f"{100 * value:.3f} %"
    return OPERATIONS.get(value, scalar(value))
