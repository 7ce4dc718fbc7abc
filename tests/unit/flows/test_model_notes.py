"""The lines of the plan about the base model."""

from typing import Any

from flows.plan_notes.model_notes import notes
from tasks.core.models.memory_probes import Gpu
from tasks.core.settings.config import check

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
    assert notes(LLAMA, check({})) == ["train: uses the fast path."]


def test_the_plain_path_has_its_reason() -> None:
    assert notes(LLAMA, check({"train": {"fast_path": "off"}})) == [
        "train: uses the plain path, several times slower than the fast path: "
        "train.fast_path is off."
    ]
    lines = notes(LLAMA | {"plain_reason": "sliding_window is 4096"}, check({}))
    assert lines[0].endswith("slower than the fast path: sliding_window is 4096.")


def test_rows_that_are_not_isolated_are_told_with_the_difference() -> None:
    lines = notes(LLAMA | {"isolation": "rows", "leak": "9e-01"}, check({}))
    assert "packed rows would see each other (hidden states differ by 0.9)" in lines[1]
    assert lines[2] == "evaluate: texts are generated one by one, with the model's cache."


def test_parameters_that_stay_in_16_bit_are_counted() -> None:
    lines = notes(LLAMA | {"other_parameters": 2 * 2**30}, check({}))
    assert "2,147 M of 8,147 M parameters stay in 16 bit (4.0 GiB)" in lines[1]


def test_features_that_a_cpu_cannot_run_in_4_bit_are_told_before_the_training() -> None:
    odd = LLAMA | {"odd_features": {"down_proj": 96}}
    assert "train: fails" in notes(odd, check({}), on_cpu=True)[1]
    assert "down_proj 96" in notes(odd, check({}), on_cpu=True)[1]
    assert notes(odd, check({}), on_cpu=False) == ["train: uses the fast path."]
    told = notes(odd, check({"train": {"quantization": "none"}}), on_cpu=True)
    assert told == ["train: uses the fast path."]


def test_a_gpu_before_ampere_is_too_old() -> None:
    assert "capability 7.5, computing in bfloat16 needs 8.0" in Gpu("T4", "1", 15.0, "7.5").too_old
    assert Gpu("RTX 3080", "1", 10.0, "8.6").too_old == ""
    assert Gpu("B200", "1", 180.0, "10.0").too_old == ""
    assert Gpu("unknown", "1", 10.0).too_old == ""
