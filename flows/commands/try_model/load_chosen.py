"""Loads the model that answers, under the GPU lock.

Torch is imported in the functions alone, so that a wrong option is reported at once.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from flows.commands.try_model.chosen_model import Chosen
from flows.delivery.compute_type import compute_type
from tasks.core.errors import PipelineError
from tasks.core.models.trusted_code import is_trusted
from tasks.core.settings.config import Config
from tasks.core.system.escape_text import first_line
from tasks.core.system.gpu_lock import gpu_turn


def load(chosen: Chosen, config: Config) -> tuple[Any, Any]:
    """Load the model and its tokenizer.

    Raises:
        PipelineError: The adapter does not fit the base.
    """
    from transformers.utils import logging

    from tasks.core.models.device import pick_device
    from tasks.core.models.loading import attach_adapter, load_model
    from tasks.core.models.pretrained import load_tokenizer

    logging.set_verbosity_error()
    device = pick_device(config.hardware.device)
    adapted = chosen.adapter is not None
    model = load_model(
        chosen.weights,
        quantization=config.evaluate.quantization if adapted else "none",
        device=config.hardware.device,
        dtype=config.evaluate.dtype if adapted else compute_type(chosen.weights, device.type),
        vram_gib=config.hardware.vram_gib,
        trust_remote_code=chosen.is_ours and is_trusted(chosen.weights),
    )
    if chosen.adapter is not None:
        try:
            model = attach_adapter(model, chosen.adapter)
        except (RuntimeError, ValueError) as error:
            raise PipelineError(
                f"{chosen.name} does not fit its base: {first_line(error)}",
                "Give the --profile and --set that the adapter was trained with.",
            ) from error
    return model, load_tokenizer(chosen.tokenizer)


def device_lock(config: Config) -> AbstractContextManager[None]:
    """The GPU lock, so that a training does not run out of memory; none for a CPU."""
    from tasks.core.models.device import pick_device

    if pick_device(config.hardware.device).type == "cpu":
        return nullcontext()
    # the user waits for the answer
    return gpu_turn(config.hardware.model_copy(update={"quiet_hours": None}))
