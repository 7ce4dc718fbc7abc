"""Compute types of devices."""

import pytest
import torch

from tasks.core.errors import PipelineError
from tasks.core.models.device import pick_dtype


def test_a_gpu_without_bfloat16_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    cuda = torch.device("cuda")
    with pytest.raises(PipelineError, match=r"Tesla T4 has compute capability 7.5, .* needs 8.0"):
        pick_dtype("auto", cuda, "nf4")
    assert pick_dtype("auto", torch.device("cpu"), "nf4") == torch.bfloat16
