"""The text of a profile: what was found in a folder, with the settings of a profile that comes with
the project and fits the machine, each section with a comment."""

import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from flows import profiles
from flows.commands.init.data_files import DataFile
from flows.commands.init.folder_contents import FolderContents
from flows.commands.init.machine import HUB_BASE, Machine
from tasks.core.rows import spdx
from tasks.core.settings.filter import FilterSettings
from tasks.ingestion.formats.files.compression import plain_name
from tasks.ingestion.sources.digests import MIN_ROWS

GPU_TEMPLATE, CPU_TEMPLATE = "my_repository", "my_repository_cpu"
TEMPLATE_SECTIONS = ("tokenize", "train", "evaluate", "merge")
MAX_SINGLE_FILES = 3  # more files of one folder and kind become one source
COMMENT_WIDTH = 78
COMMENTS = {
    "base": "the model that is trained: hub_id, path of a folder, or gguf (docs/your-model.md)",
    "ingest": "what it is trained on (docs/your-data.md)",
    "filter": "which rows are kept; `finetune show filter` lists all rules",
    "prompt": "how rows become text (docs/chat.md)",
    "tokenize": "longest sample and window, in tokens",
    "train": "max_steps auto: the number of steps follows from the data (finetune plan shows it)",
    "evaluate": "how much is measured; more takes longer",
    "merge": "rows on which the merged model is compared with base + adapter",
    "hardware": "limits of this machine; changing them retrains nothing",
}


def profile_text(found: FolderContents, machine: Machine, base: Mapping[str, Any]) -> str:
    """The profile as YAML with comments.

    Args:
        found: What is in the folder.
        machine: Where it is trained.
        base: The section `base`.
    """
    file = profiles.locate(GPU_TEMPLATE if machine.gpu else CPU_TEMPLATE)
    template = yaml.safe_load(file.read_text(encoding="utf-8"))
    sections = _sections(found, machine, base, template)
    where = machine.gpu if machine.gpu else f"the CPU ({machine.why_cpu})"
    lines = [
        f"# {found.place.name}: fine-tuning on {where}",
        "# Written by `finetune init`. Next, in this folder: finetune plan, finetune run",
    ]
    for name, section in sections.items():
        lines += ["", f"# {COMMENTS[name]}", f"{name}:"]
        if name == "ingest":
            lines += ["  sources:", *_source_lines(found, _code_fields(found, base, template))]
        else:
            lines += [f"  {field}: {_plain(value)}" for field, value in section.items()]
    return "\n".join(lines) + "\n"


def _sections(
    found: FolderContents, machine: Machine, base: Mapping[str, Any], template: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """All sections but the sources, in order."""
    sections: dict[str, Mapping[str, Any]] = {"base": base, "ingest": {}}
    if licences := _licences(found, template):
        sections["filter"] = licences
    prompt = dict(template["prompt"])
    # each row of a data file is a project; files are a unit of code alone, if there are three
    if found.data or sum(found.languages.values()) < MIN_ROWS:
        del prompt["split"]
    if _uses_chat_template(found, base):
        prompt["template"] = "chat"
    if prompt:
        sections["prompt"] = prompt
    sections |= {name: template[name] for name in TEMPLATE_SECTIONS if name in template}
    return {**sections, "hardware": machine.hardware()}


def _licences(found: FolderContents, template: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the filter that keep the user's own code, whatever its license."""
    if not found.languages:
        return {}
    if not found.licence:
        return dict(template["filter"])
    is_allowed = spdx.is_met(found.licence, FilterSettings().licences)
    return {} if is_allowed else {"more_licences": [found.licence]}


def _code_fields(
    found: FolderContents, base: Mapping[str, Any], template: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields of the source of code besides kind and path."""
    (source,) = template["ingest"]["sources"]
    fields = {name: value for name, value in source.items() if name not in ("kind", "path")}
    if base.get("hub_id") != HUB_BASE:  # whether it has tokens for infilling is not known yet
        fields["rows"] = [kind for kind in fields["rows"] if kind != "fill"]
    if found.requested:  # no functions are known in them
        fields["rows"] = [kind for kind in fields["rows"] if kind != "functions"]
        fields["languages"] = list(found.requested)
    if not found.is_project:
        del fields["columns"]
    return fields


def _uses_chat_template(found: FolderContents, base: Mapping[str, Any]) -> bool:
    """Whether conversations are written in the base's own template: the small model for the CPU is
    a chat model, whose template does not support tools."""
    chats = [file for file in found.data if file.is_chat]
    is_chat_model = "instruct" in str(base.get("gguf") or base.get("hub_id")).lower()
    return bool(chats) and is_chat_model and not any(file.has_tools for file in chats)


def _source_lines(found: FolderContents, code_fields: Mapping[str, Any]) -> Iterator[str]:
    """The list of sources, each below a comment."""
    if found.languages:
        yield from _code_source(found, code_fields)
    for files in _grouped(found.data):
        yield from _data_source(files)
    for file in found.unread:
        yield from _comment(f"not read: {file.path}: {file.problem}")


def _code_source(found: FolderContents, fields: Mapping[str, Any]) -> Iterator[str]:
    counted = ", ".join(f"{count:,} {name}" for name, count in found.languages.items())
    yield from _comment(f"source files outside of tests: {counted}")
    if found.is_repository:
        yield from _comment("kind git reads the commit HEAD; kind folder, the files as they are")
    if not found.licence:
        yield from _comment(
            f"license unknown ({found.licence_evidence}): below, `filter.keep_unknown_licence` "
            "keeps it as your own code; remove that line for code of others"
        )
    kind = "git" if found.is_repository else "folder"
    yield f"    - kind: {kind}"
    yield f"      path: {_plain(_path(found.place))}"
    yield from (f"      {name}: {_plain(value)}" for name, value in fields.items())


def _data_source(files: Sequence[DataFile]) -> Iterator[str]:
    first = files[0]
    rows = sum(file.rows for file in files)
    more = "more than " if any(file.is_more for file in files) else ""
    what = "conversations" if first.is_chat else "rows"
    yield from _comment(f"{more}{rows:,} {what}, read as {first.reading}")
    if first.unused:
        yield from _comment(
            f"columns not used: {', '.join(first.unused)}; to use them, set `columns` "
            "(docs/your-data.md#formats)"
        )
    if first.rendered:
        yield from _comment(first.rendered)
    source: dict[str, Any] = {"kind": "files", "path": _path(first.path)}
    if len(files) > 1:
        source["path"] = f"{_path(first.path.parent)}/*{_ending(first.path)}"
    if first.take:
        yield from _comment("answers to compare: the chosen ones are trained on")
        source["take"] = first.take
    if first.columns:
        yield from _comment("columns are guessed; check with: finetune show ingest --row 0")
        source["columns"] = dict(first.columns)
    yield f"    - {_plain(source)}"


def _grouped(data: Sequence[DataFile]) -> list[list[DataFile]]:
    """Data files as sources: one each, but one for many files of the same kind in a folder, if it
    has no others with that ending."""
    groups: dict[tuple[Any, ...], list[DataFile]] = defaultdict(list)
    for file in data:
        groups[(file.path.parent, _ending(file.path), file.take, file.form)].append(file)
    sources = []
    for (folder, ending, *_), files in groups.items():
        there = sum(path.name.endswith(ending) for path in folder.iterdir())
        is_one = MAX_SINGLE_FILES < len(files) == there
        sources += [files] if is_one else [[file] for file in files]
    return sources


def _ending(path: Path) -> str:
    """Its extension with that of a compression: ".jsonl.gz"."""
    name = plain_name(path.name)
    return path.name[len(Path(name).stem) :]


def _path(path: Path) -> str:
    """Absolute, for runs from any folder and by a worker; below the user's home with ~."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        width=COMMENT_WIDTH,
        initial_indent="    # ",
        subsequent_indent="    # ",
        break_on_hyphens=False,
    )


def _plain(value: Any) -> str:
    """A value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")
