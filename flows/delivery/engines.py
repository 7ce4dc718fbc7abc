"""Inference engines that serve a model through an OpenAI-compatible endpoint on loopback.

To add one: a class with the methods of `Engine`, and a line in `ENGINES`. The first engine of the
table that is installed and can load the model is used.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from flows.delivery.compute_type import compute_type
from flows.delivery.delivered_model import DeliveredModel
from tasks.core.errors import PipelineError

HOST = "127.0.0.1"
START_S = 600.0  # vLLM compiles on its first start
STOP_S = 20.0
POLL_S = 0.2


class Engine(Protocol):
    """An inference engine.

    Attributes:
        name: For --engine.
        remedy: How to install it.
        uses_gpu: It takes a GPU if there is one.
        cuts_stop_words: It leaves the stop word out of the answer.
        limits_length: It refuses a prompt that is longer than the window.
    """

    name: str
    remedy: str
    uses_gpu: bool
    cuts_stop_words: bool
    limits_length: bool

    def is_installed(self) -> bool:
        """Whether it can be started."""
        ...

    def file_of(self, model: DeliveredModel) -> Path | None:
        """What it would load; None if the model has no such file."""
        ...

    @contextmanager
    def serving(self, file: Path, context: int | None) -> Iterator[str]:
        """Serve a file; yields the engine's address."""
        ...


class LlamaCpp:
    """llama.cpp's own server, in this process, from the wheel xllamacpp."""

    name = "llama.cpp"
    remedy = "Install it: pip install 'finetune-pipeline[serve]'."
    uses_gpu = False  # the wheel of PyPI; those for GPUs come from another index
    cuts_stop_words = limits_length = True

    def is_installed(self) -> bool:
        """Whether the wheel is there."""
        return importlib.util.find_spec("xllamacpp") is not None

    def file_of(self, model: DeliveredModel) -> Path | None:
        """A GGUF file."""
        return model.preferred_gguf()

    @contextmanager
    def serving(self, file: Path, context: int | None) -> Iterator[str]:
        """Start the server; it ends with this process."""
        import xllamacpp

        settings: Any = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.model_alias = {file.stem}
        settings.hostnames, settings.port = [HOST], 0
        settings.n_ctx = context or 0  # 0: that of the model
        settings.verbosity = 1  # errors
        try:
            server = xllamacpp.Server(settings)
        except RuntimeError as error:
            raise PipelineError(
                f"llama.cpp can't load {file}: {error}", "Export the file again: finetune run."
            ) from error
        yield str(server.listening_address)


class CommandEngine(ABC):
    """An engine that is started as a command and serves a model's folder."""

    name: str
    remedy: str
    uses_gpu = True
    cuts_stop_words = limits_length = True
    path: str  # answers once the engine is ready

    @abstractmethod
    def command(self, folder: Path, port: int, context: int | None) -> list[str]:
        """The command line."""

    def file_of(self, model: DeliveredModel) -> Path | None:
        """The model's folder."""
        return model.folder

    @contextmanager
    def serving(self, file: Path, context: int | None) -> Iterator[str]:
        """Start the command; end it and its children afterwards."""
        port = free_port()
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        process = subprocess.Popen(
            self.command(file, port, context), env=environment, start_new_session=True
        )
        address = f"http://{HOST}:{port}"
        try:
            self._await_ready(process, address + self.path)
            yield address
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _await_ready(self, process: "subprocess.Popen[bytes]", address: str) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise PipelineError(
                    f"{self.name} ended with exit code {process.returncode} before it was ready",
                    "Its messages are above. Choose another engine: --engine NAME.",
                )
            with suppress(OSError), urllib.request.urlopen(address, timeout=5):
                return
            time.sleep(POLL_S)
        raise PipelineError(
            f"{self.name} was not ready after {START_S:.0f} s", "Choose another: --engine NAME."
        )


class Transformers(CommandEngine):
    """`transformers serve`."""

    name = "transformers"
    cuts_stop_words = limits_length = False
    remedy = "Install what it needs: pip install 'finetune-pipeline[serve]'."
    path = "/health"

    def is_installed(self) -> bool:
        """Whether its requirements are there; it imports types of the package openai."""
        return importlib.util.find_spec("openai") is not None

    def command(self, folder: Path, port: int, context: int | None) -> list[str]:
        """The command line; the gateway limits the context."""
        from tasks.core.models.device import pick_device  # imports PyTorch

        dtype = compute_type(folder, pick_device("auto").type)
        main = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
        options = ["--host", HOST, "--port", str(port), "--dtype", dtype]
        return [sys.executable, "-c", main, "serve", str(folder), *options]


class Vllm(CommandEngine):
    """`vllm serve`, where vLLM is installed."""

    name = "vllm"
    remedy = "Install vLLM beside this project, and put its command vllm on the PATH."
    path = "/health"

    def is_installed(self) -> bool:
        """Whether its command is on the PATH."""
        return shutil.which("vllm") is not None

    def command(self, folder: Path, port: int, context: int | None) -> list[str]:
        """The command line."""
        length = ["--max-model-len", str(context)] if context else []
        return ["vllm", "serve", str(folder), "--host", HOST, "--port", str(port), *length]


ENGINES: tuple[Engine, ...] = (LlamaCpp(), Vllm(), Transformers())
AUTO = "auto"
NAMES = (AUTO, *(engine.name for engine in ENGINES))


def pick_engine(model: DeliveredModel, wanted: str) -> tuple[Engine, Path]:
    """An engine, and what it loads.

    Raises:
        PipelineError: The wanted engine, or every engine, is not installed or can't load the model.
    """
    problems = []
    for engine in ENGINES:
        if wanted not in (AUTO, engine.name):
            continue
        file = engine.file_of(model)
        if file is not None and engine.is_installed():
            return engine, file
        problem = "is not installed" if file is not None else "needs a GGUF file, which is missing"
        problems.append((f"{engine.name} {problem}", engine.remedy if file is not None else ""))
    reasons = "; ".join(problem for problem, _ in problems)
    gguf = "Set merge.gguf to [q8_0], and run `finetune run` and `finetune promote`."
    remedy = next((remedy for _, remedy in problems if remedy), gguf)
    raise PipelineError(f"{model.name} can't be served: {reasons}", remedy)


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        return int(server.getsockname()[1])
