"""The fast path on a real GPU, in bfloat16."""

import os
import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.gpu

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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_kernels_equal_the_torch_operations_on_a_gpu(case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.training.kernel_checks", case, "cuda"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
