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
    "linear_parameters": 6_000_000_000,
    "other_parameters": 1_000_000,
    "unreached": [],
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
    assert lines[2] == "evaluate: texts are generated one by one, with its own cache."


def test_parameters_that_stay_in_16_bit_are_counted() -> None:
    lines = notes(LLAMA | {"other_parameters": 2 * 2**30}, check({}), RTX)
    assert "2,147 M of 8,147 M parameters stay in 16 bit (4.0 GiB)" in lines[1]


def test_features_that_a_cpu_cannot_run_in_4_bit_are_told_before_the_training() -> None:
    odd = LLAMA | {"odd_features": {"down_proj": 96}}
    assert "train: stops" in notes(odd, check({}), None)[1]
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
