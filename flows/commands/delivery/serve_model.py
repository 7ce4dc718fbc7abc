"""`finetune serve-model`: serve a merged model to editors and programs of this machine."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click

from flows import terminal
from flows.delivery import engines
from flows.delivery.delivered_model import CHAMPION, find_model
from flows.delivery.engines import HOST
from tasks.core import progress
from tasks.core.errors import PipelineError
from tasks.core.system.interrupts import settle

PORT = 8012  # where llama.vscode looks for completions


@click.command("serve-model")
@click.option(
    "--model",
    "source",
    default=CHAMPION,
    show_default=True,
    metavar="champion|PATH",
    help="The champion, the folder of a merged model, or a GGUF file.",
)
@click.option("--port", default=PORT, show_default=True, help="Port of the endpoint.")
@click.option(
    "--engine",
    "name",
    type=click.Choice(engines.NAMES),
    default=engines.AUTO,
    show_default=True,
    help="Program that runs the model.",
)
@click.option("--context", type=int, metavar="TOKENS", help="Longest prompt with its answer.")
def serve_model(source: str, port: int, name: str, context: int | None) -> int:
    """Serve a merged model to editors and other programs.

    The endpoint has the API of OpenAI and is reachable from this machine only. Runs until Ctrl-C.
    """
    import uvicorn

    from flows.delivery.openai_gateway import gateway

    model = find_model(source)
    engine, file = engines.pick_engine(model, name)
    with ExitStack() as held:
        listener = held.enter_context(_listener(port))
        if engine.uses_gpu:
            held.enter_context(_gpu_lock())
        address = held.enter_context(engine.serving(file, context))
        only = None if engine.name == engines.LlamaCpp.name else str(file)
        application = gateway(address, model.stop, model.infilling, only, engine.cuts_stop_words)
        terminal.show(f"{model.name}: {file.name} in {engine.name}")
        fills = ", ".join(model.infilling) if model.infilling else "the model has no tokens for it"
        terminal.show(f"infilling: {fills}")
        own = listener.getsockname()[1]
        terminal.show(f"http://{HOST}:{own}/v1 serves until Ctrl-C; editors: docs/editor.md")
        config = uvicorn.Config(application, log_level="warning", lifespan="on")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # raised again after a clean shutdown
            settle()
        terminal.show("stopped")
    return 0


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
        raise PipelineError(
            f"port {port} of {HOST} is in use", f"Choose another port: --port {port + 1}."
        ) from error
    return listener
