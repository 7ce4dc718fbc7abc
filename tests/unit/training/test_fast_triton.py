"""The GPU kernels equal the PyTorch operations: in Triton's interpreter, in 32 bit."""

import json
import os
import subprocess
import sys

import pytest

from tests.unit.training.conftest import KERNEL_CASES

pytest.importorskip("triton", reason="comes with PyTorch for CUDA only")


@pytest.mark.parametrize("case", KERNEL_CASES)
def test_kernels_equal_the_torch_operations(case: str) -> None:
    """In a process of its own: the interpreter is chosen when Triton is first imported."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.training.kernel_checks", case, "cpu"],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    if b"only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("this Triton's interpreter does not work with this NumPy")
    assert done.returncode == 0, done.stderr.decode()[-3000:]


RTX_3080_SHARED = 99 * 1024  # bytes of shared memory that a block may take


def test_every_kernel_compiles_for_an_rtx_3080_and_fits_its_shared_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.training.ampere_checks"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["integer units"]
    shapes = printed["shared"]
    assert len(shapes) == 6
    for shape, kernels in shapes.items():
        assert ("norm_rope" in kernels) == (shape == "Qwen3 1.7B")
        assert len(kernels) == 18 + ("norm_rope" in kernels), shape  # instead of `rope`
        assert max(kernels.values()) <= RTX_3080_SHARED, (shape, kernels)
