"""The kernels of the fast path on a real GPU, in bfloat16."""

import pytest

from tests.unit.training.conftest import KERNEL_CASES


@pytest.mark.parametrize("case", [*KERNEL_CASES, "noise"])
def test_kernels_equal_the_torch_operations_on_a_gpu(case: str) -> None:
    from tests.unit.training import kernel_checks

    kernel_checks.main(case, "cuda")
