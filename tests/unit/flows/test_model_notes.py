"""The lines of the plan about the base model."""

from typing import Any

from flows.plan_notes.model_notes import _hardware, notes
from tasks.core.models.memory_probes import Gpu
from tasks.core.settings.config import check

RTX = Gpu("RTX 3080", "1", 10.0, "8.6")
T4 = Gpu("Tesla T4", "1", 15.0, "7.5")
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "plain_reason": "",
    "trusted_code": False,
    "isolation": "varlen",
    "leak": "1e-06",
    "generation_cache": True,
    "parameters": 6_201_000_000,
    "linear_parameters": 6_000_000_000,
    "unreached_parameters": 0,
    "other_parameters": 1_000_000,
    "unreached": [],
    "experts": {},
    "odd_features": {},
}


def test_a_llama_takes_the_fast_path_and_nothing_is_unusual() -> None:
    assert notes(LLAMA, check({}), RTX) == ["train: uses the fast path."]


def test_the_plain_path_has_its_reason() -> None:
    assert notes(LLAMA, check({"train": {"fast_path": "off"}}), RTX) == [
        "train: uses the plain path, several times slower than the fast path: "
        "train.fast_path is off."
    ]
    lines = notes(LLAMA | {"plain_reason": "sliding_window is 4096"}, check({}), RTX)
    assert lines[0].endswith("slower than the fast path: sliding_window is 4096.")


def test_rows_that_are_not_isolated_are_told_with_the_difference() -> None:
    lines = notes(LLAMA | {"isolation": "rows", "leak": "9e-01"}, check({}), RTX)
    assert "packed rows would see each other (hidden states differ by 0.9)" in lines[1]
    assert lines[2] == "evaluate: texts are generated one by one, with the model's cache."


def test_parameters_that_stay_in_16_bit_are_counted() -> None:
    lines = notes(LLAMA | {"other_parameters": 2 * 2**30}, check({}), RTX)
    assert "2,147 M of 8,147 M parameters stay in 16 bit (4.0 GiB)" in lines[1]


OLMOE: dict[str, Any] = LLAMA | {
    "model_type": "olmoe",
    "parameters": 6_919_000_000,
    "linear_parameters": 268_000_000,
    "other_parameters": 2_000_000,
    "shape": {"hidden": 2048, "layers": 16, "vocabulary": 50_304, "lora_per_rank": 262_144},
    "experts": {
        "parameters": 6_442_450_944,
        "layers": 16,
        "each": 64,
        "active": 8,
        "largest": 268_435_456,
        "lora_per_rank": 7_340_032,
    },
}


def test_experts_are_told_with_what_they_take_and_what_is_trained() -> None:
    lines = notes(OLMOE, check({"train": {"lora_rank": 16}}))
    assert lines[1:] == [
        "base: 64 experts in each of 16 layers, of which a token passes 8, hold 6,442 of 6,919 M "
        "parameters: 3.1 GiB in 4 bit.",
        "train: LoRA of rank 2 on the experts adds 14.7 M trained parameters (train.expert_rank); "
        "train.lora_dropout does not apply to it.",
    ]
    lines = notes(OLMOE, check({"train": {"quantization": "none", "expert_rank": 0}}))
    assert lines[1].endswith("12.0 GiB in 16 bit.")
    assert lines[2] == "train: the experts are not trained, as train.expert_rank is 0."
    lines = notes(OLMOE, check({"train": {"target_modules": ["q_proj"]}}))
    assert lines[2] == "train: the experts are not trained, as train.target_modules is set."


def test_layers_that_lora_does_not_reach_are_named_and_counted() -> None:
    lines = notes(LLAMA | {"unreached": ["dt_proj"], "unreached_parameters": 9 * 10**6}, check({}))
    assert lines[-1] == "base: LoRA does not reach dt_proj: 9 M parameters are not trained."


def test_weights_that_the_gpu_cannot_hold_are_told_with_both_numbers() -> None:
    assert not any("stops" in line for line in notes(OLMOE, check({}), limit_gib=9.5))
    told = notes(OLMOE, check({"train": {"quantization": "none"}}), limit_gib=9.5)
    assert "weights of the base take 12.9 GiB of GPU memory and 9.5 GiB may be used" in told[-1]


def test_features_that_a_cpu_cannot_run_in_4_bit_are_told_before_the_training() -> None:
    odd = LLAMA | {"odd_features": {"down_proj": 96}}
    assert "train: fails" in notes(odd, check({}), None)[1]
    assert "down_proj 96" in notes(odd, check({}), None)[1]
    assert notes(odd, check({}), RTX) == ["train: uses the fast path."]
    told = notes(odd, check({"train": {"quantization": "none"}}), None)
    assert told == ["train: uses the fast path."]


def test_a_gpu_before_volta_is_too_old() -> None:
    old = Gpu("GTX 1080", "1", 8.0, "6.1")
    assert "capability 6.1, computing in 16 bit needs 7.0" in old.too_old
    assert [gpu.too_old for gpu in (T4, RTX, Gpu("B200", "1", 180.0, "10.0"))] == ["", "", ""]
    assert Gpu("unknown", "1", 10.0).too_old == ""
    assert [gpu.uses_float16 for gpu in (old, T4, RTX)] == [False, True, False]


def test_a_gpu_without_bfloat16_takes_float16_and_the_plain_path() -> None:
    assert _hardware(T4, check({}))[0].startswith(
        "train: float16 with loss scaling, as this Tesla T4 has no bfloat16; it ends in"
    )
    wide = check({"train": {"dtype": "float32"}})
    assert _hardware(T4, wide) == _hardware(RTX, check({})) == []
    assert "train.dtype to auto" in _hardware(T4, check({"train": {"dtype": "bfloat16"}}))[0]
    assert notes(LLAMA, check({}), T4)[0].endswith("bfloat16 and float32, not in float16.")
    assert notes(LLAMA, wide, T4)[0].endswith("fast path: Triton needs compute capability 8.0.")
    half = check({"train": {"dtype": "float16"}})
    assert "plain path" in notes(LLAMA, half, RTX)[0]
    assert _hardware(RTX, half)[0].startswith("train: float16 with loss scaling; it ends")
