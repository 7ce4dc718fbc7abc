"""`finetune try "..."`: stream one answer of a model to the terminal.

The model is the champion, the adapter of the settings, or a model or adapter in a folder. An
adapter runs on its 4-bit base, as it was trained and measured. The prompt is built from the
template of the training. Only the answer goes to standard output; the name of the model and the
speed go to standard error.
"""

import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import click

from flows import profiles
from flows.commands.options import takes_settings
from flows.commands.try_model.chosen_model import choose
from flows.commands.try_model.load_chosen import device_lock, load
from flows.session import Request
from tasks.core import progress
from tasks.core.errors import PipelineError
from tasks.core.settings import config as configs
from tasks.core.system.interrupts import settle
from tasks.core.text import prompt_templates
from tasks.core.text.prompt_templates import PromptTemplate
from tasks.core.text.special_tokens import MissingTokenError
from tasks.evaluation.generation.sampling import Sampling
from tasks.evaluation.generation.stream_answer import answer


@dataclass(frozen=True)
class Question:
    """What the model answers, and how.

    Attributes:
        text: The instruction.
        given: Input of the instruction; "" for none.
        suffix: Text after the answer, which fills in what is between `text` and it; "" for none.
        raw: `text` is the prompt itself.
        max_new_tokens: Limit of the answer.
        sampling: How tokens are picked.
    """

    text: str
    given: str
    suffix: str
    raw: bool
    max_new_tokens: int
    sampling: Sampling

    def check(self) -> None:
        """Report options that contradict each other or are out of bounds.

        Raises:
            PipelineError: They are.
        """
        if self.suffix and self.given:
            raise PipelineError(
                "--suffix fills in after TEXT itself, and --input belongs to an instruction",
                "Leave one of them out.",
            )
        temperature, top_p = self.sampling.temperature, self.sampling.top_p
        if self.max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
            raise PipelineError(
                f"max_new_tokens {self.max_new_tokens}, temperature {temperature}, top_p "
                f"{top_p}; allowed are at least 1, at least 0, and above 0 up to 1",
                "Leave these options out for a greedy answer.",
            )

    def prompt(self, template: PromptTemplate) -> tuple[str, str]:
        """The prompt, and the text that ends the answer; "" for none."""
        if self.suffix:
            return prompt_templates.fill_prompt(self.text, self.suffix), ""
        if self.raw:
            return self.text, ""
        prompt = prompt_templates.render(template, self.text, self.given)
        return prompt, prompt_templates.stop_of(template)


def print_answer(request: Request, source: str | None, question: Question) -> int:
    """Print the answer of a model.

    Args:
        request: Settings.
        source: As in `choose`.
        question: Of which the text "-" is read from standard input.
    """
    question.check()
    if question.text == "-":
        question = replace(question, text=sys.stdin.read())
    config = configs.load(profiles.locate(request.profile), request.overrides)
    with ExitStack() as held, progress.sink(_StandardError()):
        chosen = choose(request, config, source, held)
        prompt, marker = question.prompt(chosen.template)
        held.enter_context(device_lock(config))
        progress.say(f"{chosen.name} answers")
        model, tokenizer = load(chosen, config)
        return _stream(model, tokenizer, prompt, marker, question)


def _stream(model: Any, tokenizer: Any, prompt: str, marker: str, question: Question) -> int:
    """Print the answer as it is generated; the exit code."""
    limit, tokens, start = question.max_new_tokens, 0, time.perf_counter()
    try:
        for count, piece in answer(model, tokenizer, prompt, marker, limit, question.sampling):
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
    cut = ", cut at --max-new-tokens" if tokens >= limit else ""
    progress.say(f"{tokens} tokens, {tokens / max(seconds, 1e-9):.1f} tokens/s{cut}")
    return 0


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
    temperature: float,
    top_p: float,
    seed: int,
    **question: Any,
) -> int:
    """Print the answer of a model to an instruction.

    \b
    Example:
      finetune try "Write a function that reverses a list."
    """
    sampling = Sampling(temperature, top_p, seed)
    return print_answer(request, source, Question(**question, sampling=sampling))
