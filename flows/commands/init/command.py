"""`finetune init`: inspects a folder and the machine, and writes finetune.yaml."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from flows import profiles, terminal
from flows.commands.init.folder_contents import FolderContents, inspect
from flows.commands.init.machine import Machine, this_machine
from flows.commands.init.profile_text import profile_text
from tasks.core.errors import PipelineError
from tasks.core.settings import config
from tasks.core.system.atomic_write import write_text
from tasks.core.system.escape_text import printable
from tasks.ingestion.formats.column_errors import listed

SHOWN_FILES = 5  # data files that are listed by name
SHOWN_COLUMNS = 8  # of a data file


@click.command
@click.argument(
    "place",
    default=".",
    metavar="[PATH]",
    help="Folder or data file.  [default: the working folder]",
)
@click.option("--base", metavar="MODEL", help="Hub id, folder or GGUF file of the base model.")
@click.option("--force", is_flag=True, help=f"Replace an existing {profiles.OWN_FILE}.")
def init(place: str, base: str | None, force: bool) -> int:
    """Write a profile for the code and data in a folder.

    The profile, finetune.yaml in the working folder, lists what is trained on and the settings that
    fit this machine. `finetune plan` and `finetune run` use it.

    \b
    Examples:
      finetune init
      finetune init ~/chats.jsonl --base HuggingFaceTB/SmolLM2-1.7B-Instruct
    """
    folder = Path(place).expanduser().resolve()
    if not folder.exists():
        raise PipelineError(f"{folder} does not exist", "Name a folder or a data file.")
    target = Path(profiles.OWN_FILE)
    if target.exists() and not force:
        raise PipelineError(
            f"{target.absolute()} exists", "Edit it, or replace it with `finetune init --force`."
        )
    found, machine = inspect(folder), this_machine()
    section = base_section(base) if base else machine.base()
    text = profile_text(found, machine, section)
    settings = yaml.safe_load(text)
    config.check(settings)
    write_text(target, text)
    for line in summary(found, machine, section, settings["prompt"].get("max_train_rows")):
        terminal.show(line)
    terminal.show(f"\nWrote {target}. Next:\n    finetune plan\n    finetune run")
    return 0


def base_section(model: str) -> dict[str, str]:
    """The section `base` for a model that the user names."""
    path = Path(model).expanduser()
    if model.startswith("package:"):
        return {"gguf": model}
    if path.exists():
        return {"gguf" if path.is_file() else "path": str(path.resolve())}
    return {"hub_id": model}


def summary(
    found: FolderContents, machine: Machine, base: Mapping[str, Any], max_rows: int | None
) -> Iterator[str]:
    """What was found and decided, one line each."""
    git = ", git repository" if found.is_repository else ""
    yield f"{found.place.name}{git}"
    if found.languages:
        code = ", ".join(f"{count:,} {name}" for name, count in found.languages.items())
        yield f"  code      {code} (source files, without tests)"
        licence = (
            found.licence
            or f"unknown ({found.licence_evidence}); see the comment in {profiles.OWN_FILE}"
        )
        yield f"  licence   {licence}"
    if found.uncommitted:
        changed = f"{found.uncommitted:,} changed or new source files"
        yield f"  git       {changed} are not committed, so they are not read"
    if found.submodules:
        names = ", ".join(map(printable, found.submodules[:SHOWN_FILES]))
        more = f" and {rest:,} more" if (rest := len(found.submodules) - SHOWN_FILES) > 0 else ""
        yield f"  git       submodules are not read ({names}{more}); name each as a source"
    for file in found.data[:SHOWN_FILES]:
        more = "over " if file.is_more else ""
        what = "conversations" if file.is_chat else "rows"
        rows = f"{more}{file.rows:,} {what}, read as {file.reading}"
        yield f"  data      {_name(file.path, found.place)}: {rows}"
        if file.unused:
            yield f"            columns not used: {listed(file.unused, SHOWN_COLUMNS)}"
        if file.rendered:
            yield f"            {file.rendered}"
    if (rest := len(found.data) - SHOWN_FILES) > 0:
        yield f"  data      and {rest:,} more files"
    for file in found.unread[:SHOWN_FILES]:
        yield f"  not read  {_name(file.path, found.place)}: {file.problem}"
    model = base.get("gguf") or base.get("path") or base.get("hub_id")
    yield f"  machine   {machine}"
    small = "" if machine.gpu else ", a small model with which to try the pipeline"
    yield f"  model     {model} on {machine.gpu or f'the CPU{small}'}"
    if max_rows:
        yield f"  limit     at most {max_rows:,} rows are trained on (prompt.max_train_rows)"


def _name(path: Path, place: Path) -> str:
    """A file's path in the folder that is inspected: folders may hold files of one name."""
    return printable(path.relative_to(place).as_posix() if path != place else path.name)
