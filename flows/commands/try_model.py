"""`finetune try "..."`: one answer, streamed to the terminal, greedy unless a temperature is given.

The model is the champion, the adapter that the settings at hand made, or one in a folder; an
adapter runs on its 4-bit base, as it was trained and measured. The prompt is the template's. Only
the answer goes to standard output; what answers, and how fast, goes to standard error.
"""

import sys
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from flows import messages, profiles
from flows.session import Request, open_session
from tasks.core import progress
from tasks.core.artifacts import champion as champions
from tasks.core.cache import manifest as manifests
from tasks.core.cache.decision import HIT
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.store import KEY_DIGITS, Store
from tasks.core.errors import PipelineError
from tasks.core.models.trusted_code import is_trusted
from tasks.core.settings import config as configs
from tasks.core.settings.config import Config
from tasks.core.system.gpu_lock import gpu_turn
from tasks.core.system.home import home
from tasks.core.text import prompt_templates
from tasks.evaluation.generation.sampling import Sampling
from tasks.evaluation.generation.stream_answer import answer

CHAMPION, ADAPTER = "champion", "adapter"
INTERRUPTED = 130


@dataclass(frozen=True)
class Chosen:
    """What answers.

    Attributes:
        name: For people.
        weights: Of the whole model, or of the adapter's base.
        tokenizer: Its folder.
        adapter: Its folder; None for a whole model.
        template: That it was trained with.
        is_ours: The pipeline made its folder.
    """

    name: str
    weights: Path
    tokenizer: Path
    adapter: Path | None
    template: str
    is_ours: bool = True


def try_out(
    request: Request,
    source: str | None,
    text: str,
    given: str,
    raw: bool,
    max_new_tokens: int,
    sampling: Sampling,
) -> int:
    """Print what a model answers.

    Args:
        request: Settings.
        source: `CHAMPION`, `ADAPTER` or a folder; None: the champion if there is one, else the
            adapter.
        text: The instruction; "-" reads it from standard input.
        given: Input that the instruction is about; "" none.
        raw: `text` is the prompt itself, to be continued.
        max_new_tokens: Limit of the answer.
        sampling: How tokens are picked.
    """
    if max_new_tokens < 1 or sampling.temperature < 0 or not 0 < sampling.top_p <= 1:
        raise PipelineError(
            f"max_new_tokens {max_new_tokens}, temperature {sampling.temperature}, top_p "
            f"{sampling.top_p}: wanted are at least 1, at least 0, and a share of 1",
            "Leave these options out for a greedy answer.",
        )
    text = sys.stdin.read() if text == "-" else text
    with ExitStack() as held, progress.sink(_Told()):
        chosen = choose(request, source, held)
        prompt = text if raw else prompt_templates.render(chosen.template, text, given)
        marker = "" if raw else prompt_templates.end_of(chosen.template)
        config = _settings(request)
        held.enter_context(_device_lock(config))
        progress.say(f"{chosen.name} answers")
        model, tokenizer = load(chosen, config)
        tokens = 0
        start = time.perf_counter()
        try:
            for count, piece in answer(model, tokenizer, prompt, marker, max_new_tokens, sampling):
                print(piece, end="", flush=True)
                tokens = count
        except KeyboardInterrupt:
            print()
            return INTERRUPTED
        print()
        seconds = time.perf_counter() - start
        limit = ", cut at the limit" if tokens >= max_new_tokens else ""
        progress.say(f"{tokens} tokens, {tokens / max(seconds, 1e-9):.1f} tokens/s{limit}")
    return 0


def choose(request: Request, source: str | None, held: ExitStack) -> Chosen:
    """Find what is to answer.

    Args:
        request: Settings; an adapter runs on their base model.
        source: As in `try_out`.
        held: Keeps what is found from being collected.

    Raises:
        PipelineError: It isn't there.
    """
    root = home() / "artifacts"
    store = Store(root, held.enter_context(DigestCache(root / ".digests.sqlite")))
    held.enter_context(store.in_use())
    template = _settings(request).prompt.template
    if source in (None, CHAMPION):
        standing = champions.current(store)
        if standing is not None:
            folder = root / champions.LINK / "model"
            name = f"champion {standing.name}"
            own = manifests.read(root / "prompt" / standing.chain.get("prompt", "")[:KEY_DIGITS])
            if own is not None:
                template = own.parts["config"].get("prompt.template", template)
            return _whole(name, folder, template)
        if source == CHAMPION:
            raise PipelineError("no model is promoted", "Promote one: finetune promote.")
    if source in (None, ADAPTER):
        return _on_base(request, None)
    folder = Path(str(source)).expanduser()
    for inner in (folder, folder / "model", folder / "adapter"):
        if (inner / "adapter_config.json").is_file():
            if not (inner / "adapter_model.safetensors").is_file():
                raise PipelineError(
                    f"{inner} has no adapter_model.safetensors",
                    "Save the adapter as safetensors; pickled weights are not loaded.",
                )
            return _on_base(request, inner.resolve())
        if (inner / "config.json").is_file():
            return replace(_whole(f"model {inner}", inner.resolve(), template), is_ours=False)
    raise PipelineError(
        f"{source} is neither champion nor adapter, nor a folder with config.json or "
        "adapter_config.json",
        "Name the folder of a model or of an adapter.",
    )


def _whole(name: str, folder: Path, template: str) -> Chosen:
    if not (folder / "config.json").is_file():
        raise PipelineError(f"{name} has no model in {folder}", "Make it again: finetune run.")
    return Chosen(name, folder, folder, None, template)


def _on_base(request: Request, adapter: Path | None) -> Chosen:
    """An adapter, by default the one of these settings, on the base of these settings."""
    with open_session(request) as session:
        plans = {plan.stage.name: plan for plan in session.plans}
        for stage in ("base",) if adapter else ("base", "train"):
            if plans[stage].decision != HIT:
                raise PipelineError(
                    f"stage {stage} has no artifact for these settings "
                    f"({messages.reason(plans[stage])})",
                    "Run `finetune run` first, with the same --profile and --set.",
                )
        base, train = plans["base"].manifest, plans["train"].manifest
        name = f"adapter {adapter}"
        if adapter is None and train is not None:
            adapter = session.store.entry(train, "adapter")
            name = f"adapter train/{train.key[:KEY_DIGITS]}"
        assert base is not None  # a HIT has one
        weights, tokenizer = (session.store.entry(base, n) for n in ("weights", "tokenizer"))
        assert weights is not None and tokenizer is not None  # declared outputs
        return Chosen(name, weights, tokenizer, adapter, session.config.prompt.template)


def load(chosen: Chosen, config: Config) -> tuple[Any, Any]:
    """The model and its tokenizer.

    Raises:
        PipelineError: The adapter does not fit the base.
    """
    from transformers.utils import logging

    from tasks.core.models.device import pick_device
    from tasks.core.models.loading import load_model
    from tasks.core.models.pretrained import load_tokenizer

    logging.set_verbosity_error()
    device = pick_device(config.hardware.device)
    adapted = chosen.adapter is not None
    model = load_model(
        chosen.weights,
        quantization=config.evaluate.quantization if adapted else "none",
        device=config.hardware.device,
        dtype=config.evaluate.dtype if adapted else _dtype(chosen.weights, device.type),
        vram_gib=config.hardware.vram_gib,
        trust_remote_code=chosen.is_ours and is_trusted(chosen.weights),
    )
    if adapted:
        from peft import PeftModel

        try:
            model = PeftModel.from_pretrained(model, chosen.adapter, is_trainable=False).eval()
        except (RuntimeError, ValueError) as error:
            raise PipelineError(
                f"{chosen.name} does not fit its base: {str(error).splitlines()[0]}",
                "Give the --profile and --set that the adapter was trained with.",
            ) from error
    return model, load_tokenizer(chosen.tokenizer)


def _dtype(weights: Path, device: str) -> Literal["bfloat16", "float32"]:
    """16 bit on a GPU; on a CPU 32 bit, which is faster there, if half of the memory holds it."""
    import psutil  # type: ignore[import-untyped]  # ships no types

    if device != "cpu":
        return "bfloat16"
    needed = 2 * sum(file.stat().st_size for file in weights.glob("*.safetensors"))
    return "float32" if needed < psutil.virtual_memory().available / 2 else "bfloat16"


def _settings(request: Request) -> Config:
    return configs.load(profiles.locate(request.profile), request.overrides)


def _device_lock(config: Config) -> AbstractContextManager[None]:
    """The GPU's lock, so that a training there does not run out of memory; none for a CPU."""
    from tasks.core.models.device import pick_device

    if pick_device(config.hardware.device).type == "cpu":
        return nullcontext()
    hardware = config.hardware.model_copy(update={"quiet_hours": None})  # somebody waits here
    return gpu_turn(hardware)


class _Told:
    """Sentences go to standard error; progress is not shown."""

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """Nothing: loading is quick, and the answer shows its own progress."""

    def message(self, text: str) -> None:
        """Print a sentence."""
        hint = " (on the CPU it need not: --set hardware.device=cpu)" if "GPU" in text else ""
        print(f"{text}{hint}", file=sys.stderr, flush=True)
