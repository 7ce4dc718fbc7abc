"""`finetune show STAGE` in sentences and tables with units, the most important first.

One function for each stage, in `LINES`; it gets the manifest and the JSON files of the artifact.
"""

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flows import messages
from flows.commands.show import filtered, rows
from tasks.core.cache.manifest import NAME, Manifest
from tasks.core.cache.source_changes import SOURCES
from tasks.core.rows.split_unit import PROJECT, ROW, plural, split_sentence

# pages of digests, which end at the next heading
KEY_PARTS = re.compile(r"\nParts of the cache keys:\n.*?(?=\n## |\Z)", re.DOTALL)
CELLS, DRAWN = re.compile(r"(?<!\\)\|"), " worse │ better "
DRAWN_WIDTH = 110  # columns that the table with drawn intervals needs
REPORT_END = "\n## Answers"  # of report.md: what follows are texts of the models
PLAIN_WIDTH = 120  # of a table that is written to a file or a pipe
HAS = {"chat": "Chat template", "tools": "Tools in it", "infilling": "Infilling tokens"}
SPLITS = ("train", "validation", "test")
LEFT_OUT = {  # reasons of the stage prompt
    "cluster_in_another_split": "near duplicates of rows in another split",
    "tied_to_a_problem": "near duplicates of problems of the evaluation",
    "holds_a_problem": "they contain a problem of the evaluation",
    "over_cap_train": "more than prompt.max_train_rows",
    "over_cap_validation": "more than prompt.max_held_out_rows",
    "over_cap_test": "more than prompt.max_held_out_rows",
}

Files = Mapping[str, Any]
Lines = Callable[[Manifest, Files, Path], Iterator[str]]


def json_files(folder: Path) -> dict[str, Any]:
    """Content of the JSON files of an artifact, by name without extension."""
    paths = (path for path in sorted(folder.glob("*.json")) if path.name not in (NAME, SOURCES))
    return {path.stem: json.loads(path.read_bytes()) for path in paths}


def _gib(value: float) -> str:
    return messages.size(value * 2**30)


def _base(manifest: Manifest, files: Files, _: Path) -> Iterator[str]:
    checks, licence = files.get("checks", {}), files.get("licence", {})
    metrics = manifest.summary.get("metrics", {})
    yield f"{metrics.get('parameters', 0):,} parameters, {_gib(metrics.get('weights_gib', 0))}."
    if licence:
        yield f"License: {licence.get('licence') or 'unknown'} ({licence.get('evidence')})."
    if limit := metrics.get("model_max_tokens"):
        yield f"Longest text: {limit:,.0f} tokens."
    if checks:
        yield f"LoRA reaches {', '.join(checks.get('lora', ()))}."
        if experts := checks.get("experts"):
            yield (
                f"LoRA reaches {experts['each']} experts in each of {experts['layers']} layers: "
                f"{experts['parameters'] / 1e6:,.0f} M parameters."
            )
        for name, text in HAS.items():
            yield f"{text}: {'yes' if checks.get(name) else 'no'}."
        if checks.get("isolation") == "rows":
            yield "Rows run one by one: packed, they would see each other."


def _ingest(manifest: Manifest, _: Files, folder: Path) -> Iterator[str]:
    for name, value in manifest.summary.get("counts", {}).items():
        if value:
            yield f"  {value:>10,}  {name}"
    if (ledger := folder / "unreadable.parquet").is_file():
        yield from rows.unreadable_lines(ledger)


def _filter(_: Manifest, files: Files, __: Path) -> Iterator[str]:
    if "funnel" in files:
        yield from filtered.funnel_lines(files["funnel"])


def _prompt(manifest: Manifest, files: Files, _: Path) -> Iterator[str]:
    counts = {**manifest.summary.get("counts", {}), **manifest.summary.get("metrics", {})}
    split = files.get("split", {})
    units = split.get("units", {})
    unit = split.get("unit", PROJECT)
    by_row = unit == ROW  # a second column would count the rows again
    yield f"  {'split':<12}{'rows':>10}{'' if by_row else f'{plural(unit, 2):>12}'}"
    for name in SPLITS:
        of_units = "" if by_row else f"{units.get(name, 0):>12,}"
        yield f"  {name:<12}{counts.get(f'{name}_rows', 0):>10,.0f}{of_units}"
    if split:
        yield f"{split_sentence(split)} No {unit} is in two splits."
    for reason, text in LEFT_OUT.items():
        if number := counts.get(reason):
            counted = "" if by_row else f" The {plural(unit, 2)} are counted with them."
            yield f"Left out: {number:,.0f} rows, {text}.{counted}"
    if problems := counts.get("problems"):
        yield f"Held out as problems of the evaluation: {problems:,.0f} functions."


def _tokenize(manifest: Manifest, files: Files, _: Path) -> Iterator[str]:
    audit = files.get("audit", {})
    yield f"  {'split':<12}{'rows':>9}{'tokens':>13}{'with loss':>11}{'windows':>9}{'padding':>9}"
    for name in SPLITS:
        if found := audit.get(name):
            yield (
                f"  {name:<12}{found['rows']:>9,}{found['tokens']:>13,}"
                f"{100 * found['trained_share']:>9.1f} %{found['windows']:>9,}"
                f"{100 * found['padding_share']:>7.1f} %"
            )
    if train := audit.get("train"):
        longest, window = train["longest_row"], train["window_tokens"]
        yield f"Longest row: {longest:,} tokens; window: {window:,} tokens."
    for reason, number in audit.get("dropped", {}).items():
        yield f"Dropped: {number:,} rows, {reason}."


def _train(_: Manifest, files: Files, __: Path) -> Iterator[str]:
    facts = files.get("training")
    if not facts:
        return
    checks = facts.get("validation") or []
    if checks:
        first, last = checks[0], checks[-1]
        accuracy = f"{100 * first['token_accuracy']:.1f} % -> {100 * last['token_accuracy']:.1f} %"
        yield (
            f"Validation loss {first['loss']:.3f} -> {last['loss']:.3f} nats, token accuracy "
            f"{accuracy}, over {last['tokens']:,} tokens."
        )
    yield f"Training loss {facts['first_loss']:.3f} -> {facts['last_loss']:.3f} nats."
    each = f"{facts['tokens_per_step']:,.0f} tokens"
    yield (
        f"{facts['step']:,} of {facts['total_steps']:,} steps of {each}: "
        f"{facts['tokens']:,} tokens, {facts['trained']:,} of them with loss, in "
        f"{messages.duration(facts['seconds'])} ({facts['tokens_per_s']:,.0f} tokens/s)."
    )
    memory = f", {facts['peak_vram_gib']:.1f} GiB of GPU memory" if facts["peak_vram_gib"] else ""
    path = f"{facts['step_path']} path on {facts['device']}"
    yield f"Step: {path}; optimizer {facts['optimizer']}{memory}."
    yield (
        f"{facts['trainable_parameters']:,} of {facts['all_parameters']:,} parameters are trained "
        f"({100 * facts['trainable_share']:.2f} %)."
    )
    if facts.get("resumed_from") is not None:
        yield f"Resumed from step {facts['resumed_from']:,}."


def _evaluate(_: Manifest, __: Files, folder: Path) -> Iterator[str]:
    """The report's tables, its verdict first."""
    from rich.console import Console
    from rich.markdown import Markdown

    text = (folder / "report.md").read_text(encoding="utf-8").partition(REPORT_END)[0]
    text = KEY_PARTS.sub("\nParts of the cache keys: `finetune explain STAGE`\n", text)
    console = Console()
    out = io.StringIO()
    width = console.width if console.is_terminal else PLAIN_WIDTH
    if width < DRAWN_WIDTH:
        text = without_drawings(text)
    Console(file=out, width=width, force_terminal=False).print(Markdown(text))
    yield from (line.rstrip() for line in out.getvalue().splitlines())


def without_drawings(text: str) -> str:
    """A report without the column of drawn intervals, which a narrow terminal would cut off."""
    lines: list[str] = []
    column = None
    for line in text.splitlines():
        cells = CELLS.split(line)
        if DRAWN in cells:
            column = cells.index(DRAWN)
        elif not line.startswith("|"):
            column = None
        if column is not None:
            del cells[column]
        if not line.startswith("Ends of the drawn scales"):
            lines.append("|".join(cells))
    return "\n".join(lines)


def _merge(manifest: Manifest, _: Files, folder: Path) -> Iterator[str]:
    metrics = manifest.summary.get("metrics", {})
    yield f"Model: {folder / 'model'} ({_gib(metrics.get('model_gib', 0))})"
    names = {
        "base16": "base in 16 bit + adapter",
        "dequantized": "base in 4 bit, dequantized + adapter",
    }
    yield f"  {'merged from':<40}{'loss (nats)':>12}{'same next tokens':>18}"
    for name, text in names.items():
        if (loss := metrics.get(f"loss_{name}")) is not None:
            yield f"  {text:<40}{loss:>12.4f}{100 * metrics[f'agreement_{name}']:>16.1f} %"
    if (loss := metrics.get("loss_evaluated")) is not None:
        yield f"  {'as evaluated: base in 4 bit + adapter':<40}{loss:>12.4f}"


LINES: Mapping[str, Lines] = {
    "base": _base,
    "ingest": _ingest,
    "filter": _filter,
    "prompt": _prompt,
    "tokenize": _tokenize,
    "train": _train,
    "evaluate": _evaluate,
    "merge": _merge,
}


def artifact_lines(manifest: Manifest, folder: Path) -> Iterator[str]:
    """An artifact in full: its summary, sentences of its stage, and where it is."""
    if manifest.stage != "evaluate":  # its report begins with the verdict
        yield f"{manifest.stage}: {messages.summary_line(manifest)}"
    yield from LINES[manifest.stage](manifest, json_files(folder), folder)
    size = sum(file.size for file in manifest.files.values())
    created = messages.moment(manifest.made.get("created"))
    yield ""
    yield f"{folder}"
    yield (
        f"created {created} in {messages.duration(manifest.seconds)}; "
        f"{messages.plural(len(manifest.files), 'file')}, {messages.size(size)}"
    )


def to_json(manifest: Manifest, folder: Path) -> dict[str, Any]:
    """An artifact for programs."""
    return {
        "stage": manifest.stage,
        "key": manifest.key,
        "folder": str(folder),
        "created": manifest.made.get("created"),
        "seconds": manifest.seconds,
        "summary": dict(manifest.summary),
        "files": {name: file.size for name, file in manifest.files.items()},
        "reports": json_files(folder),
    }
