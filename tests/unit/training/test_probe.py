"""Expected memory of training: stored probes, and formulas without a probe."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.errors import PipelineError
from tasks.core.models import memory_estimate, memory_probes
from tasks.core.models.memory_probes import Gpu, Probe
from tasks.core.settings.config import check
from tasks.training.fast.buffers import fixed_bytes, kept_bytes
from tasks.training.fast.model.extract import extract_model
from tasks.training.fast.model.groups import parameter_order
from tasks.training.lora import add_lora
from tasks.training.optimizer import make_optimizer
from tasks.training.steppers import memory_probe as probing
from tasks.training.steppers.autograd_stepper import AutogradStepper
from tasks.training.steppers.flat_parameters import FlatParameters
from tests.unit.training.conftest import make_window, tiny

GPU = Gpu("NVIDIA Test", "1.2", 10.0)
PROBE = Probe(4096, "fast", 32, 1.0, 3.5, 0.2, 8, 30_000.0)


def settings(**changes: Any) -> Any:
    return check({"train": changes}).train


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *[
            (kind, changes)
            for kind in ("llama", "stablelm")
            for changes in (
                {},
                {"last_layers": 1},
                {"target_modules": ["q_proj", "down_proj"]},
                {"lora_rank": 40},
            )
        ],
        ("llama", {"backward": "int8"}),
        ("gemma3_text", {}),
        ("gpt_bigcode", {}),
        ("cohere with norms of heads", {}),
    ],
    ids=str,
)
def test_the_formulas_give_the_buffers_that_are_allocated(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    wanted, model = settings(**changes), tiny(kind).to(torch.bfloat16)
    model.config.save_pretrained(tmp_path)
    model = add_lora(
        model,
        rank=wanted.lora_rank,
        alpha=16,
        dropout=0.0,
        targets=wanted.target_modules,
        last_layers=wanted.last_layers,
    )
    flat = FlatParameters(model, parameter_order)
    parts = extract_model(model, flat.offsets)
    shape = memory_estimate.DecoderShape.read(tmp_path)
    assert shape is not None
    one = memory_estimate.kept_bytes(shape, wanted, 300)
    assert one == kept_bytes(parts, 300)
    assert memory_estimate.buffer_bytes(shape, wanted, 300) == fixed_bytes(
        parts, 300, wide=wanted.backward == "int8"
    )
    weights = memory_estimate.weight_bytes(shape, settings(quantization="none", **changes))
    lora = flat.values.numel() * (memory_estimate.LORA_BYTES - 2)
    counted = sum(p.numel() * 2 for p in model.parameters()) - 2 * flat.values.numel()
    small = ("norm", "bias", "ln_", "wpe")  # not counted
    norms = sum(
        p.numel() * 2 for n, p in model.named_parameters() if any(part in n for part in small)
    )
    assert weights == pytest.approx(counted - norms + lora + 2 * flat.values.numel(), rel=1e-6)


def test_the_estimate_at_the_shape_of_stable_code_3b_is_what_was_measured() -> None:
    """See benchmarks/README.md; reserved GiB of the training step on an H100."""
    shape = memory_estimate.DecoderShape(2560, 6912, 32, 32, 32, 80, 50_304, False)
    for tokens, kept, measured in ((4096, 22, 6.82), (3328, 28, 6.81), (2816, 32, 6.36)):
        found = memory_estimate.estimate(shape, settings(), tokens, None)
        assert found.reserved_gib(kept) == pytest.approx(measured, rel=0.1)


def test_speed_is_estimated_for_known_gpus_alone() -> None:
    shape = memory_estimate.DecoderShape(2560, 6912, 32, 32, 32, 80, 50_304, False)
    known = Gpu("NVIDIA GeForce RTX 3080", "1", 10.0, "8.6")
    fast = memory_estimate.estimate(shape, settings(), 4096, known)
    plain = memory_estimate.estimate(shape, settings(fast_path="off"), 4096, known)
    assert 0 < plain.tokens_per_s < fast.tokens_per_s < 5000
    assert memory_estimate.estimate(shape, settings(), 4096, GPU).tokens_per_s == 0
    assert plain.base_gib > fast.base_gib
    half = memory_estimate.estimate(shape, settings(dtype="float16"), 4096, known)
    turing = memory_estimate.estimate(shape, settings(), 4096, Gpu("Tesla T4", "1", 15.0, "7.5"))
    assert half == plain
    assert (turing.step_path, turing.base_gib) == ("plain", plain.base_gib)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bases: dict[str, Path]) -> Path:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    return bases["llama"]


def test_a_probe_is_found_again_for_the_same_gpu_shape_and_window(known: Path) -> None:
    about = memory_probes.facts(GPU, known, settings())
    assert memory_probes.read(about, 4096) is None
    memory_probes.write(about, 4090, PROBE)
    assert memory_probes.read(about, 4000) == PROBE  # rounded up to the same length
    assert memory_probes.read(about, 4097) is None


@pytest.mark.parametrize(
    "other",
    [
        {"gpu": Gpu("NVIDIA Other", "1.2", 10.0)},
        {"gpu": Gpu("NVIDIA Test", "1.3", 10.0)},
        {"settings": {"lora_rank": 16}},
        {"settings": {"fast_path": "off"}},
        {"kind": "stablelm"},
    ],
    ids=str,
)
def test_a_probe_of_another_gpu_driver_shape_or_setting_is_not_taken(
    known: Path, other: dict[str, Any], bases: dict[str, Path]
) -> None:
    memory_probes.write(memory_probes.facts(GPU, known, settings()), 4096, PROBE)
    changed = memory_probes.facts(
        other.get("gpu", GPU),
        bases[other.get("kind", "llama")],
        settings(**other.get("settings", {})),
    )
    assert memory_probes.read(changed, 4096) is None


def test_kept_layers_follow_from_the_memory_that_is_free() -> None:
    share = memory_probes.TARGET_SHARE
    assert [PROBE.kept_within(g / share) for g in (3.4, 3.71, 5.5001, 99)] == [0, 1, 10, 32]
    assert PROBE.reserved_gib(10) == pytest.approx(5.5)
    assert Probe(4096, "plain", 32, 5.0, 3.5, 0.0, 0, 1.0).reserved_gib(9) == 5.0
    assert Probe(4096, "plain", 32, 5.0, 3.5, 0.0, 0, 1.0).kept_within(99) == 0


def test_what_does_not_fit_is_an_error_with_both_numbers() -> None:
    with pytest.raises(PipelineError, match=r"needs 7\.00 GiB of GPU memory and 6\.50"):
        probing.check(7.0, 6.5, 4096)


def test_a_probe_halves_the_window_until_it_fits_and_leaves_the_parameters_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = add_lora(tiny("llama"), rank=4, alpha=16, dropout=0.0)
    flat = FlatParameters(model)
    before = flat.values.detach().clone()
    window = make_window(*[100] * 12)
    stepper = AutogradStepper(model, 0, len(window.input_ids))
    run = stepper.run

    def limited(windows: Any, *rest: Any) -> Any:
        if max(w.tokens for w in windows) > 400:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(windows, *rest)

    monkeypatch.setattr(stepper, "run", limited)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    found = probing.measure(
        stepper,
        flat,
        lambda: make_optimizer("adamw", flat.values, 0.01),
        window,
        load_gib=0.0,
        limit_gib=4.0,
        kept_layers=None,
    )
    assert found.window_tokens == 300 and found.tokens_per_s > 0
    assert torch.equal(flat.values.detach(), before)
    assert float(flat.gradient.abs().sum()) == 0


def test_probes_of_another_version_are_passed_over(known: Path) -> None:
    about = memory_probes.facts(GPU, known, settings())
    memory_probes.write(about, 4096, PROBE)
    path = memory_probes._path()
    path.write_text(path.read_text().replace("base_gib", "other_gib"))
    assert memory_probes.read(about, 4096) is None
    path.write_text("{")
    assert memory_probes.read(about, 4096) is None
