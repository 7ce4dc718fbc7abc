"""Compute types of devices."""

import pytest
import torch

from tasks.core.errors import PipelineError
from tasks.core.models.device import pick_dtype
from tasks.training.steppers.pick_stepper import _no_kernels

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def t4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")


@pytest.mark.usefixtures("t4")
def test_a_gpu_without_bfloat16_computes_in_float16() -> None:
    assert pick_dtype("auto", CUDA, "nf4") == "float16"
    assert pick_dtype("float32", CUDA, "nf4") == "float32"
    assert pick_dtype("auto", CPU, "nf4") == "bfloat16"
    assert pick_dtype("auto", CPU, "none") == "float32"
    with pytest.raises(PipelineError, match=r"T4 has .* 7.5, .* needs 8.0\n.* to auto or flo"):
        pick_dtype("bfloat16", CUDA, "nf4")


def test_a_gpu_before_volta_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GTX 1080")
    with pytest.raises(PipelineError, match=r"6.1, computing in float16 needs 7.0\nUse an RTX 20"):
        pick_dtype("auto", CUDA, "nf4")


@pytest.mark.usefixtures("t4")
def test_float32_on_a_gpu_without_triton_takes_the_plain_path() -> None:
    assert "Triton needs" in _no_kernels(torch.float32, CUDA)
    assert "float16" in _no_kernels(torch.float16, CPU)
    assert _no_kernels(torch.bfloat16, CPU) == ""
