"""Creates a model in Ollama from a GGUF file and its Modelfile, by the command `ollama`."""

import shutil
import subprocess

from flows import terminal
from flows.delivery.delivered_model import DeliveredModel
from tasks.core.errors import PipelineError


def check_ollama() -> None:
    """Check that the command is there, before anything is promoted.

    Raises:
        PipelineError: It is not on the PATH.
    """
    if shutil.which("ollama") is None:
        raise PipelineError(
            "the command ollama is not on the PATH",
            "Install Ollama (https://ollama.com/download), or promote without --ollama and "
            "export the model with its Modelfile: finetune export FOLDER.",
        )


def create_in_ollama(model: DeliveredModel, name: str) -> None:
    """Create the model, or replace it.

    Raises:
        PipelineError: The model has no GGUF file with a Modelfile, or Ollama fails.
    """
    check_ollama()
    file = model.preferred_gguf()
    if file is None or not file.with_suffix(".Modelfile").is_file():
        raise PipelineError(
            f"{model.name} has no GGUF file with a Modelfile",
            "Set merge.gguf to [q8_0], run `finetune run`, and promote again with --ollama.",
        )
    command = ["ollama", "create", name, "-f", str(file.with_suffix(".Modelfile"))]
    done = subprocess.run(command, cwd=file.parent, check=False)
    if done.returncode:
        raise PipelineError(
            f"`ollama create {name}` ended with exit code {done.returncode}",
            "Its message is above. If Ollama is not running, start it with `ollama serve`; then "
            "repeat the command.",
        )
    terminal.show(f"in Ollama: ollama run {name}")
