"""The train stage on a real GPU: memory, recovery, resume, equal training of both steppers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tasks.core.errors import PipelineError
from tasks.core.models import memory_probes
from tasks.core.models.device import GIB, free_gpu, limit_memory
from tasks.core.stage import Work
from tasks.core.system.home import home
from tests.gpu.conftest import curve

Train = Callable[..., Work]


def facts(work: Work) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work.out / "training.json").read_text())
    return found


def apart(a: list[float], b: list[float]) -> float:
    """Mean distance of two curves."""
    assert len(a) == len(b)
    return float(np.abs(np.array(a) - np.array(b)).mean())


def test_two_hundred_steps_of_both_paths_give_one_curve_within_bf16_noise(train: Train) -> None:
    changes: dict[str, Any] = {"max_steps": 200, "lora_dropout": 0.0}
    fast = curve(train("fast", **changes))
    plain = curve(train("plain", fast_path="off", **changes))
    wide = curve(train("wide", fast_path="off", dtype="float32", **changes))
    noise, ours = apart(plain, wide), apart(fast, wide)
    print(f"loss {fast[0]:.3f} -> {fast[-1]:.3f}; plain off by {noise:.4f}, fast by {ours:.4f}")
    assert fast[-1] < fast[0] - 1
    assert ours < 1.5 * noise + 2e-3
    assert abs(np.mean(fast[-20:]) / np.mean(wide[-20:]) - 1) < 0.03


def test_float16_with_loss_scaling_gives_the_curve_of_bfloat16(train: Train) -> None:
    changes: dict[str, Any] = {"max_steps": 100, "lora_dropout": 0.0, "fast_path": "off"}
    narrow = train("narrow", dtype="float16", **changes)
    half, brain = curve(narrow), curve(train("brain", **changes))
    wide = curve(train("wide", dtype="float32", **changes))
    noise, ours = apart(brain, wide), apart(half, wide)
    skipped = facts(narrow)["overflowed"]
    print(f"float16 off by {ours:.4f}, bfloat16 by {noise:.4f}; {skipped} steps skipped")
    assert (facts(narrow)["dtype"], facts(narrow)["step_path"]) == ("float16", "plain")
    assert half[-1] < half[0] - 1
    assert skipped <= 5
    assert ours < noise + 2e-2


def test_a_cap_that_shrinks_in_mid_run_is_survived_with_the_same_steps(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.training.loop import Loop

    kept = {"kept_layers": 8, "batch_tokens": 8192, "max_steps": 20}
    whole = train("whole", **kept)
    gradients = Loop._gradients
    held: list[torch.Tensor] = []

    def shrink(self: Loop, *step: Any) -> torch.Tensor:
        if self.counters.step == 9 and not held:  # no more than what is held now, and that is full
            torch.cuda.synchronize()
            free_gpu()
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
            for size in (2**21, 2**16, 2**9):
                with suppress(torch.OutOfMemoryError):
                    while True:
                        held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        return gradients(self, *step)

    monkeypatch.setattr(Loop, "_gradients", shrink)
    smaller = train("smaller", **kept)
    torch.cuda.set_per_process_memory_fraction(1.0)
    held.clear()
    before, after = facts(whole), facts(smaller)
    assert before["kept_layers"] == 8 and after["kept_layers"] < 8
    for name in ("step", "tokens", "trained", "epoch", "total_steps"):
        assert after[name] == before[name]
    assert apart(curve(smaller), curve(whole)) < 0.02


def test_a_run_resumed_with_the_paged_8_bit_optimizer_stays_on_its_curve(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.training.loop import Loop

    changes: dict[str, Any] = {"max_steps": 60, "checkpoint_every": 30}
    whole = train("whole", **changes)
    assert facts(whole)["optimizer"] == "paged_adamw_8bit"
    again = train("again", **changes)
    update = Loop._update

    def die(self: Loop, step: int) -> None:
        if step == 40:
            raise KeyboardInterrupt
        update(self, step)

    monkeypatch.setattr(Loop, "_update", die)
    with pytest.raises(KeyboardInterrupt):
        train("killed", **changes)
    monkeypatch.undo()
    resumed = train("killed", **changes)
    assert facts(resumed)["resumed_from"] == 30
    noise, ours = apart(curve(again), curve(whole)), apart(curve(resumed), curve(whole))
    print(f"the same run twice: {noise:.2e} apart; resumed: {ours:.2e}")
    assert ours <= 2 * noise + 2e-3


def probed() -> memory_probes.Probe:
    """The one stored probe."""
    text = (home() / "artifacts" / ".probes.json").read_text()
    (entry,) = json.loads(text).values()
    return memory_probes.Probe(**next(iter(entry["probes"].values())))


def test_expected_memory_is_what_is_reserved_and_the_probe_is_stored(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = facts(train("first"))
    assert first["peak_vram_gib"] == pytest.approx(first["expected_vram_gib"], rel=0.1)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("there is a stored probe")

    monkeypatch.setattr("tasks.training.steppers.memory_probe.measure", fail)
    assert facts(train("second"))["kept_layers"] == first["kept_layers"] == 8


def test_as_many_layers_are_kept_as_the_cap_leaves_room_for(train: Train) -> None:
    train("first", max_steps=6)
    found = probed()
    cap = (found.base_gib + 3.5 * found.layer_gib) / memory_probes.TARGET_SHARE
    smaller = facts(train("smaller", hardware={"vram_gib": cap}, max_steps=6))
    assert smaller["kept_layers"] == 3
    assert smaller["peak_vram_gib"] <= cap


def test_more_layers_kept_by_hand_than_fit_is_an_error_before_the_run(train: Train) -> None:
    train("first", max_steps=6, kept_layers=0)
    cap = probed().base_gib + 2 * probed().layer_gib
    with pytest.raises(PipelineError, match=r"needs 0\.\d+ GiB of GPU memory and 0\.\d+ GiB"):
        train(hardware={"vram_gib": cap}, kept_layers=8)


@pytest.mark.parametrize("path", ["auto", "off"])
def test_offloaded_activations_save_memory_and_train_alike(train: Train, path: str) -> None:
    changes: dict[str, Any] = {"kept_layers": 0, "max_steps": 20, "fast_path": path}
    here = train("here", **changes)
    there = train("there", offload_activations=True, **changes)
    assert apart(curve(here), curve(there)) < 0.02
    assert facts(there)["peak_vram_gib"] < facts(here)["peak_vram_gib"]


def test_extra_modules_train_in_32_bit_inside_a_4_bit_model(train: Train) -> None:
    extra = ["embed_tokens", "norm", "input_layernorm"]
    work = train(extra_modules=extra, learning_rate=1e-3, max_steps=60)
    lora_alone = train("lora", learning_rate=1e-3, max_steps=60, fast_path="off")
    tensors = load_file(work.out / "adapter" / "adapter_model.safetensors")
    trained = [name for name in tensors if "lora_" not in name]
    assert len(trained) == 1 + 1 + 8
    assert all(tensors[name].dtype == torch.float32 for name in trained)
    assert curve(work)[-1] < curve(lora_alone)[-1]


def test_the_memory_cap_holds() -> None:
    free_gpu()
    limit_memory(torch.device("cuda"), torch.cuda.memory_reserved() / GIB + 0.5)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(2**30, dtype=torch.uint8, device="cuda")
        torch.empty(2**28, dtype=torch.uint8, device="cuda")
    finally:
        limit_memory(torch.device("cuda"), None)


def test_the_allocators_segments_grow() -> None:
    code = (
        "import torch; from tasks.core.models.device import limit_memory; "
        "limit_memory(torch.device('cuda'), None, {}); torch.empty(9, device='cuda'); "
        "print(torch.cuda.memory._snapshot()['allocator_settings']['expandable_segments'])"
    )
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTORCH_")}
    for wanted in (True, False):
        command = [sys.executable, "-c", code.format(wanted)]
        out = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
        assert out.stdout.strip() == str(wanted)
