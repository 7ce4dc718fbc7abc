"""`finetune show`: contents of the artifacts, down to one row and its trained and masked tokens."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from flows import messages
from flows.commands.options import stage_argument, takes_settings
from flows.commands.show import filtered, rows
from flows.session import Request, Session, open_session
from flows.store_access import current_artifact, plan_of
from tasks.core.cache.decision import HIT, Selection
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.source_changes import SOURCES
from tasks.core.errors import PipelineError
from tasks.core.system.escape_text import escape_controls
from tasks.core.text.special_tokens import readable

# the table that --row reads, by stage: entry of the artifact and file in it
MAIN_TABLE = {
    "ingest": ("rows", ""),
    "filter": ("kept", ""),
    "prompt": ("train", ""),
    "tokenize": ("train", "rows.parquet"),
    "evaluate": ("rows", ""),
}
# further tables that are searched for a row id
OTHER_TABLES = {
    "filter": (("rejected", ""),),
    "prompt": (("validation", ""), ("test", "")),
    "tokenize": (("validation", "rows.parquet"), ("test", "rows.parquet")),
}
MAX_DIGITS = 12  # of a row number; a row id is longer


@click.command
@stage_argument(required=False)
@click.option("--row", metavar="N", help="Row number (or row id) of the stage's main table.")
@takes_settings
def show(request: Request, stage: str | None, row: str | None) -> int:
    """Show the artifacts: one line each, one in full, or one row of it."""
    if stage is not None and row is None:  # a row is followed through the later stages
        request = replace(request, selection=Selection(only=(stage,)))
    with open_session(request) as session:
        if stage is None:
            for plan in session.plans:
                hit = plan.decision == HIT
                state = messages.summary_line(plan.manifest) if hit else plan.decision
                print(f"{plan.stage.name:<10}{state}")
            return 0
        manifest = current_artifact(plan_of(session, stage))
        if row is None:
            _print_artifact(session, manifest)
        else:
            _print_row(session, manifest, row)
    return 0


def _print_artifact(session: Session, manifest: Manifest) -> None:
    """Print counts, metrics, JSON files, and the paths."""
    folder = session.store.folder(manifest.stage, manifest.key)
    summary = manifest.summary
    print(f"{manifest.stage}: {summary.get('line', '')}")
    print(
        f"{folder}\ncreated {manifest.made.get('created')} in {messages.duration(manifest.seconds)}"
    )
    if manifest.stage == "filter" and (funnel := folder / "funnel.json").is_file():
        print("\n".join(["", *filtered.funnel_lines(json.loads(funnel.read_bytes()))]))
        return
    for group in ("counts", "metrics"):
        for name, value in summary.get(group, {}).items():
            print(f"  {name:<40}{value:>14,}")
    for name, file in manifest.files.items():
        print(f"  {name:<60}{file.size:>14,} bytes")
    if manifest.stage == "ingest" and (ledger := folder / "unreadable.parquet").is_file():
        print("\n".join(rows.unreadable_lines(ledger)))
    for path in sorted(folder.glob("*.json")):
        if path.name not in ("manifest.json", SOURCES):
            text = json.dumps(json.loads(path.read_bytes()), indent=1, ensure_ascii=False)
            print(f"\n{path.name}\n{text[:4000]}")


def _print_row(session: Session, manifest: Manifest, wanted: str) -> None:
    """Print one row, found by its number in the main table or by its id."""
    stage = manifest.stage
    if stage not in MAIN_TABLE:
        raise PipelineError(
            f"stage {stage} has no table of rows", f"Stages with rows: {', '.join(MAIN_TABLE)}."
        )
    is_number = wanted.isdecimal() and len(wanted) < MAX_DIGITS
    others = () if is_number else OTHER_TABLES.get(stage, ())
    tables = _tables(session, manifest, (MAIN_TABLE[stage], *others))
    for entry, table in tables.items():
        record = rows.find_row(table, wanted, is_number)
        if record is None:
            continue
        if stage == "tokenize":
            _print_tokens(session, record)
        elif stage == "filter":
            _print_history(session, manifest, record)
        else:
            _print_fields(entry, record)
        return
    raise PipelineError(f"stage {stage} has no row {wanted!r}", rows.numbers(tables))


def _tables(
    session: Session, manifest: Manifest, wanted: Iterable[tuple[str, str]]
) -> dict[str, Path]:
    """Path of each entry's table."""
    folders = ((entry, session.store.entry(manifest, entry), file) for entry, file in wanted)
    return {e: folder / file if file else folder for e, folder, file in folders if folder}


def _print_fields(entry: str, record: Mapping[str, Any]) -> None:
    print(f"[{entry}]")
    for name, value in record.items():
        text = escape_controls(readable(str(value)))
        print(f"\n{name}:\n{text}" if "\n" in text else f"{name}: {text}")


def _print_history(session: Session, manifest: Manifest, record: dict[str, Any]) -> None:
    """Print a kept or rejected row with its measurements and its use downstream."""
    table = session.store.folder("filter", manifest.key) / "measurements.parquet"
    measured = rows.find_row(table, record["row_id"]) if table.is_file() else None
    use = [] if record.get("reasons") else _downstream(session, record["row_id"])
    print("\n".join(filtered.history_lines(record, measured, use)))


def _downstream(session: Session, row_id: str) -> list[str]:
    """How the stages after filter used a kept row."""
    made = {plan.stage.name: plan.manifest for plan in session.plans if plan.decision == HIT}
    folders = {
        name: session.store.folder(name, manifest.key) if (manifest := made.get(name)) else None
        for name in ("prompt", "tokenize")
    }
    return filtered.downstream(row_id, folders["prompt"], folders["tokenize"])


def _print_tokens(session: Session, record: dict[str, Any]) -> None:
    """Print decoded tokens: masked ones dim, trained ones green; in brackets without colors."""
    from tokenizers import Tokenizer

    manifest = session.planner.artifacts.get("base") or current_artifact(plan_of(session, "base"))
    folder = session.store.entry(manifest, "tokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json")) if folder else None

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=False) if tokenizer else str(ids)

    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print("\n".join(rows.token_lines(record, decode, color)))
