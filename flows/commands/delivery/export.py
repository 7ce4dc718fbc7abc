"""`finetune export`: one folder or archive that other programs load."""

import re
from pathlib import Path

import click

from flows import terminal
from flows.delivery.bundle import bundle_files, write_bundle
from flows.delivery.delivered_model import CHAMPION, find_model


@click.command
@click.argument(
    "target", type=click.Path(path_type=Path), help="Folder, or archive: *.tar, *.tar.gz."
)
@click.option(
    "--model",
    "source",
    default=CHAMPION,
    show_default=True,
    metavar="champion|FOLDER",
    help="The champion, or the folder of a merged model.",
)
def export(target: Path, source: str) -> int:
    """Copy a merged model into a folder or archive.

    It contains what transformers, vLLM, llama.cpp and Ollama load, and a README with the commands
    of each.

    \b
    Example:
      finetune export ~/models/mine
    """
    model = find_model(source)
    target = target.expanduser().absolute()
    title = re.sub(r"[^a-z0-9._-]+", "-", target.name.partition(".t")[0].lower()).strip("-.")
    files = bundle_files(model, title or "model")
    write_bundle(files, target)
    terminal.show(f"{model.name}: {len(files)} files in {target}")
    terminal.show("The commands of each program are in its README.md.")
    return 0
