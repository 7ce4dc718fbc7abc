"""`finetune try "..."`: stream one answer of a model to the terminal.

The model is the champion, the adapter of the settings, or a model or adapter in a folder. An
adapter runs on its 4-bit base, as it was trained and measured. The prompt is built from the
template of the training. Only the answer goes to standard output; the name of the model and the
speed go to standard error.
"""

import signal
import sys
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click

from flows import profiles
from flows.commands.options import takes_settings
from flows.session import Request, open_session
from flows.store_access import current_artifact, open_store, plan_of, root
from tasks.core import progress
from tasks.core.artifacts import champion as champions
from tasks.core.cache import manifest as manifests
from tasks.core.cache.store import KEY_DIGITS
from tasks.core.errors import PipelineError
from tasks.core.models.trusted_code import is_trusted
from tasks.core.settings import config as configs
from tasks.core.settings.config import Config
from tasks.core.system.escape_text import first_line
from tasks.core.system.gpu_lock import gpu_turn
from tasks.core.system.interrupts import settle
from tasks.core.text import prompt_templates
from tasks.core.text.prompt_templates import PromptTemplate
from tasks.core.text.special_tokens import MissingTokenError
from tasks.evaluation.generation.sampling import Sampling
from tasks.evaluation.generation.stream_answer import answer

CHAMPION, ADAPTER = "champion", "adapter"


@dataclass(frozen=True)
class Chosen:
    """The model that answers.

    Attributes:
        name: Shown to the user.
        weights: Folder of the full model, or of the base of the adapter.
        tokenizer: Folder of the tokenizer.
        adapter: Folder of the adapter; None for a full model.
        template: Prompt template of its training.
        is_ours: The pipeline created its folder.
    """

    name: str
    weights: Path
    tokenizer: Path
    adapter: Path | None
    template: PromptTemplate
    is_ours: bool = True


def try_out(
    request: Request,
    source: str | None,
    text: str,
    given: str,
    raw: bool,
    max_new_tokens: int,
    sampling: Sampling,
    suffix: str = "",
) -> int:
    """Print the answer of a model.

    Args:
        request: Settings.
        source: `CHAMPION`, `ADAPTER` or a folder; None: the champion if there is one, else the
            adapter.
        text: The instruction; "-" reads it from standard input.
        given: Input of the instruction; "" for none.
        raw: `text` is the prompt itself.
        max_new_tokens: Limit of the answer.
        sampling: How tokens are picked.
        suffix: Text after the answer, which fills in what is between `text` and it; "" for none.
    """
    if suffix and given:
        raise PipelineError(
            "--suffix fills in after TEXT itself, and --input belongs to an instruction",
            "Leave one of them out.",
        )
    if max_new_tokens < 1 or sampling.temperature < 0 or not 0 < sampling.top_p <= 1:
        raise PipelineError(
            f"max_new_tokens {max_new_tokens}, temperature {sampling.temperature}, top_p "
            f"{sampling.top_p}; allowed are at least 1, at least 0, and above 0 up to 1",
            "Leave these options out for a greedy answer.",
        )
    text = sys.stdin.read() if text == "-" else text
    with ExitStack() as held, progress.sink(_StandardError()):
        chosen = choose(request, source, held)
        prompt = text if raw else prompt_templates.render(chosen.template, text, given)
        prompt = prompt_templates.fill_prompt(text, suffix) if suffix else prompt
        marker = "" if raw or suffix else prompt_templates.stop_of(chosen.template)
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
        except MissingTokenError as error:
            raise PipelineError(error.problem, "Leave --suffix out.") from error
        except KeyboardInterrupt as stop:
            settle()
            print()
            return 128 + getattr(stop, "number", signal.SIGINT)
        print()
        seconds = time.perf_counter() - start
        limit = ", cut at --max-new-tokens" if tokens >= max_new_tokens else ""
        progress.say(f"{tokens} tokens, {tokens / max(seconds, 1e-9):.1f} tokens/s{limit}")
    return 0


def choose(request: Request, source: str | None, held: ExitStack) -> Chosen:
    """Find the model that answers.

    Args:
        request: Settings; an adapter runs on their base model.
        source: As in `try_out`.
        held: Keeps `gc` from removing the model while it is open.

    Raises:
        PipelineError: The model does not exist.
    """
    store = held.enter_context(open_store())
    held.enter_context(store.in_use())
    template = _template(_settings(request))
    if source in (None, CHAMPION):
        standing = champions.current(store)
        if standing is not None:
            folder = root() / champions.LINK / "model"
            name = f"champion {standing.name}"
            own = manifests.read(root() / "prompt" / standing.chain.get("prompt", "")[:KEY_DIGITS])
            if own is not None:
                made = own.parts["config"]
                values = {
                    "text": made.get("prompt.template", template.text),
                    "system": made.get("prompt.system", ""),
                    "date": made.get("prompt.date", template.date),
                }
                template = PromptTemplate(**values)
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


def _whole(name: str, folder: Path, template: PromptTemplate) -> Chosen:
    if not (folder / "config.json").is_file():
        raise PipelineError(f"{name} has no model in {folder}", "Recreate it with: finetune run.")
    return Chosen(name, folder, folder, None, template)


def _on_base(request: Request, adapter: Path | None) -> Chosen:
    """An adapter, by default the one of these settings, on the base of these settings."""
    with open_session(request.leading_to("train" if adapter is None else "base")) as session:
        base = current_artifact(plan_of(session, "base"))
        name = f"adapter {adapter}"
        if adapter is None:
            train = current_artifact(plan_of(session, "train"))
            adapter = session.store.entry(train, "adapter")
            name = f"adapter train/{train.key[:KEY_DIGITS]}"
        weights, tokenizer = (session.store.entry(base, n) for n in ("weights", "tokenizer"))
        assert weights is not None and tokenizer is not None  # declared outputs
        return Chosen(name, weights, tokenizer, adapter, _template(session.config))


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
        dtype=config.evaluate.dtype if adapted else _dtype(chosen.weights, device.type),
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


def _dtype(weights: Path, device: str) -> Literal["auto", "bfloat16", "float32"]:
    """16 bit on a GPU; 32 bit on a CPU, faster there, if it fits in half of the free RAM."""
    import psutil  # type: ignore[import-untyped]  # ships no types

    if device != "cpu":
        return "auto"
    needed = 2 * sum(file.stat().st_size for file in weights.glob("*.safetensors"))
    return "float32" if needed < psutil.virtual_memory().available / 2 else "bfloat16"


def _template(config: Config) -> PromptTemplate:
    prompt = config.prompt
    return PromptTemplate(prompt.template, prompt.system, prompt.date)


def _settings(request: Request) -> Config:
    return configs.load(profiles.locate(request.profile), request.overrides)


def _device_lock(config: Config) -> AbstractContextManager[None]:
    """The GPU lock, so that a training does not run out of memory; none for a CPU."""
    from tasks.core.models.device import pick_device

    if pick_device(config.hardware.device).type == "cpu":
        return nullcontext()
    hardware = config.hardware.model_copy(
        update={"quiet_hours": None}
    )  # the user waits for the answer
    return gpu_turn(hardware)


class _StandardError:
    """Progress sink that prints messages to standard error and shows no bars."""

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """Do nothing: loading is quick, and the answer shows its own progress."""

    def message(self, text: str) -> None:
        """Print a message."""
        hint = " (to run on the CPU: --set hardware.device=cpu)" if "GPU" in text else ""
        print(f"{text}{hint}", file=sys.stderr, flush=True)


@click.command("try")
@click.argument("text", help="The instruction; - reads it from standard input.")
@click.option(
    "--input", "given", default="", metavar="TEXT", help="Text that the instruction is about."
)
@click.option(
    "--from",
    "source",
    metavar="champion|adapter|FOLDER",
    help="Model that answers; default: the champion, else the adapter of these settings.",
)
@click.option(
    "--suffix", default="", metavar="TEXT", help="Fill in what is between TEXT and this text."
)
@click.option("--raw", is_flag=True, help="Send TEXT as it is, without the prompt template.")
@click.option(
    "--max-new-tokens",
    default=512,
    metavar="N",
    show_default=True,
    help="Longest answer, in tokens.",
)
@click.option(
    "--temperature",
    default=0.0,
    metavar="N",
    show_default=True,
    help="0 takes the likeliest token each time; higher is more random.",
)
@click.option(
    "--top-p",
    default=1.0,
    metavar="N",
    show_default=True,
    help="Choose among the likeliest tokens of this total probability.",
)
@click.option(
    "--seed", default=0, metavar="N", show_default=True, help="Seed of the random choices."
)
@takes_settings
def try_model(
    request: Request,
    source: str | None,
    text: str,
    given: str,
    suffix: str,
    raw: bool,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> int:
    """Print the answer of a model to an instruction.

    \b
    Example:
      finetune try "Write a function that reverses a list."
    """
    sampling = Sampling(temperature, top_p, seed)
    return try_out(request, source, text, given, raw, max_new_tokens, sampling, suffix)
