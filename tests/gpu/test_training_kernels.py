"""The kernels of the fast path on a real GPU, in bfloat16."""

import pytest

CASES = [
    "load_weight",
    "norms",
    "lora_in",
    "lora_in_backward",
    "lora_out_backward",
    "rope",
    "attention",
    "swiglu",
    "cross_entropy",
    "whole_step",
    "noise",
]


@pytest.mark.parametrize("case", CASES)
def test_kernels_equal_the_torch_operations_on_a_gpu(case: str) -> None:
    from tests.unit.training import kernel_checks

    kernel_checks.main(case, "cuda")
