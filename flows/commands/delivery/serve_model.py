"""`finetune serve-model`: serve a merged model to editors and programs of this machine."""

import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from flows import terminal
from flows.delivery import engines
from flows.delivery.delivered_model import CHAMPION, DeliveredModel, find_model
from flows.delivery.engines import HOST
from tasks.core import progress
from tasks.core.errors import PipelineError
from tasks.core.system.interrupts import handled, settle

PORT = 8012  # where llama.vscode looks for completions
STOP_S = 2  # for answers that are being written when it is stopped


@click.command("serve-model")
@click.option(
    "--model",
    "source",
    default=CHAMPION,
    show_default=True,
    metavar="champion|PATH",
    help="The champion, the folder of a merged model, or a GGUF file.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port of the endpoint; 0: any that is free.",
)
@click.option(
    "--engine",
    "name",
    type=click.Choice(engines.NAMES),
    default=engines.AUTO,
    show_default=True,
    help="Program that runs the model.",
)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Longest prompt with its answer; default: what the model allows.",
)
def serve_model(source: str, port: int, name: str, context: int | None) -> int:
    """Serve a merged model to editors and other programs.

    The endpoint has the API of OpenAI and is reachable from this machine only. Runs until Ctrl-C.
    """
    import uvicorn

    from flows.delivery.openai_gateway import Gateway

    model = find_model(source)
    engine, file = engines.pick_engine(model, name)
    with ExitStack() as held:
        listener = held.enter_context(_listener(port))
        if engine.uses_gpu:
            held.enter_context(_gpu_lock())
        address = held.enter_context(engine.serving(file, context))
        served = Gateway(
            address,
            model.stop,
            model.infilling,
            model=None if engine.name == engines.LlamaCpp.name else str(file),
            cuts=engine.cuts_stop_words,
            limited=None if engine.limits_length else _limit(file, context),
        )
        server = uvicorn.Server(
            uvicorn.Config(
                served.application(),
                log_level="warning",
                lifespan="on",
                timeout_graceful_shutdown=STOP_S,
            )
        )
        try:
            listener.listen()  # who reads these lines may send a request at once
            _show_address(model, f"{file.name} in {engine.name}", listener.getsockname()[1])
            # uvicorn handles the other two itself
            with handled([signal.SIGHUP], server.handle_exit):
                server.run(sockets=[listener])
        except KeyboardInterrupt:  # raised again after a clean shutdown
            settle()
        terminal.show("stopped")
    return 0


def _show_address(model: DeliveredModel, what: str, port: int) -> None:
    terminal.show(f"{model.name}: {what}")
    fills = ", ".join(model.infilling) if model.infilling else "the model has no tokens for it"
    terminal.show(f"infilling: {fills}")
    terminal.show(f"http://{HOST}:{port}/v1 serves until Ctrl-C; editors: docs/editor.md")


def _limit(folder: Path, context: int | None) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    from flows.delivery.prompt_length import PromptLength  # imports transformers

    return PromptLength(folder, context).limited


@contextmanager
def _gpu_lock() -> Iterator[None]:
    """The GPU lock, so that a training does not run out of memory; none without a GPU."""
    from tasks.core.models.device import pick_device
    from tasks.core.settings.hardware import HardwareSettings
    from tasks.core.system.gpu_lock import gpu_turn

    if pick_device("auto").type == "cpu":
        yield
        return
    with progress.sink(_Waits()), gpu_turn(HardwareSettings()):
        yield


class _Waits:
    """Progress sink that prints what is waited for."""

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """Do nothing: waiting has no progress."""

    def message(self, text: str) -> None:
        """Print a message."""
        terminal.show(text)


def _listener(port: int) -> socket.socket:
    """A socket bound to the port, before minutes are spent on loading a model."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror}"
        other = PORT + 1 if port <= PORT else PORT
        raise PipelineError(
            f"port {port} of {HOST} {why}", f"Choose another port: --port {other}."
        ) from error
    return listener
