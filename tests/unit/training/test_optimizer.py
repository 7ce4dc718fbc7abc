"""The schedule is transformers'; the optimizer fits its device."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import get_scheduler

from tasks.core.errors import PipelineError
from tasks.training.optimizer import learning_rate, pick_optimizer
from tasks.training.report import loss_plot
from tasks.training.report.loss_plot import draw_loss
from tasks.training.report.metrics_log import MetricsLog, read_metrics


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_learning_rate_is_that_of_transformers(name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-5)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=3, num_training_steps=10)
    for step in range(10):
        ours = learning_rate(step, peak=2e-5, warmup_steps=3, total_steps=10, schedule=name)  # type: ignore[arg-type]
        assert ours == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_a_constant_rate_stays_after_the_warmup() -> None:
    rates = [
        learning_rate(s, peak=1.0, warmup_steps=2, total_steps=9, schedule="constant")
        for s in range(4)
    ]
    assert rates == [0.0, 0.5, 1.0, 1.0]


def test_the_optimizer_follows_the_device() -> None:
    assert pick_optimizer("auto", torch.device("cpu")) == "adamw"
    assert pick_optimizer("auto", torch.device("cuda")) == "paged_adamw_8bit"
    with pytest.raises(PipelineError, match="paged_adamw_8bit and the model is on the cpu"):
        pick_optimizer("paged_adamw_8bit", torch.device("cpu"))


def test_metrics_of_steps_that_run_again_are_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(tmp_path, -1, 9)
    for step in (2, 4, 6):
        log.add({"step": step, "loss": 1.0 / step})
    with path.open("a") as file:
        file.write('{"step": 8, "lo')  # a kill in the middle of a line
    MetricsLog(tmp_path, 4, 9)
    assert [line["step"] for line in read_metrics(path)] == [2, 4]


def test_the_loss_picture_is_a_png(tmp_path: Path) -> None:
    lines = [{"step": s, "loss": 2.0 / s} for s in range(1, 30)]
    held = [{"step": 0, "validation_loss": 2.1}, {"step": 29, "validation_loss": 0.2}]
    draw_loss([*lines, *held], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_loss_picture_has_no_background_and_colors_for_a_white_and_a_dark_page(tmp_path):
    draw_loss([{"step": step, "loss": 2.0} for step in range(1, 9)], tmp_path / "loss.png")
    assert Image.open(tmp_path / "loss.png").getpixel((2, 2))[3] == 0
    for color in (loss_plot.LOSS, loss_plot.MEAN, loss_plot.HELD_OUT, loss_plot.INK):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (((p + 0.055) / 1.055) ** 2.4 for p in parts)
        light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        assert 1.05 / (light + 0.05) >= 3  # on white
        assert (light + 0.05) / (0.008 + 0.05) >= 3  # on #171614
