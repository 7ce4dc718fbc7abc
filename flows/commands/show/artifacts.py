"""`finetune show`: what the artifacts hold, down to one row and its trained and masked tokens."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flows import messages
from flows.commands.show import filtered, rows
from flows.session import Request, Session, open_session
from tasks.core.cache.decision import HIT
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.source_changes import SOURCES
from tasks.core.errors import PipelineError
from tasks.core.system.escape_text import escape_controls
from tasks.core.text.special_tokens import readable

# the table that --row looks into, by stage: entry of the artifact and file in it
MAIN_TABLE = {
    "ingest": ("rows", ""),
    "filter": ("kept", ""),
    "prompt": ("train", ""),
    "tokenize": ("train", "rows.parquet"),
    "evaluate": ("rows", ""),
}
# where a row id is looked for besides
OTHER_TABLES = {
    "filter": (("rejected", ""),),
    "prompt": (("validation", ""), ("test", "")),
    "tokenize": (("validation", "rows.parquet"), ("test", "rows.parquet")),
}
MAX_DIGITS = 12  # of a row's number; an id is longer


def show(request: Request, stage: str | None, row: str | None) -> int:
    """Print all artifacts in a line each, one artifact in full, or one row of it."""
    with open_session(request) as session:
        if stage is None:
            for plan in session.plans:
                state = (
                    messages.summary_line(plan.manifest) if plan.decision == HIT else plan.decision
                )
                print(f"{plan.stage.name:<10}{state}")
            return 0
        manifest = _current(session, stage)
        if row is None:
            _print_artifact(session, manifest)
        else:
            _print_row(session, manifest, row)
    return 0


def _current(session: Session, stage: str) -> Manifest:
    """The artifact of a stage for these settings."""
    plan = next(p for p in session.plans if p.stage.name == stage)
    if plan.decision != HIT or plan.manifest is None:
        raise PipelineError(
            f"stage {stage} has no artifact for these settings ({messages.reason(plan)})",
            "Run `finetune run` first, with the same --profile and --set.",
        )
    return plan.manifest


def _print_artifact(session: Session, manifest: Manifest) -> None:
    """Counts, measured values, extra JSON files, and where everything lies."""
    folder = session.store.folder(manifest.stage, manifest.key)
    summary = manifest.summary
    print(f"{manifest.stage}: {summary.get('line', '')}")
    print(f"{folder}\nmade {manifest.made.get('created')} in {messages.duration(manifest.seconds)}")
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
    """One row by its number in the main table, or by row id."""
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
            _print_story(session, manifest, record)
        else:
            _print_fields(entry, record)
        return
    raise PipelineError(f"stage {stage} has no row {wanted!r}", rows.numbers(tables))


def _tables(
    session: Session, manifest: Manifest, wanted: Iterable[tuple[str, str]]
) -> dict[str, Path]:
    """Where each entry's table lies."""
    folders = ((entry, session.store.entry(manifest, entry), file) for entry, file in wanted)
    return {e: folder / file if file else folder for e, folder, file in folders if folder}


def _print_fields(entry: str, record: Mapping[str, Any]) -> None:
    print(f"[{entry}]")
    for name, value in record.items():
        text = escape_controls(readable(str(value)))
        print(f"\n{name}:\n{text}" if "\n" in text else f"{name}: {text}")


def _print_story(session: Session, manifest: Manifest, record: dict[str, Any]) -> None:
    """A row of kept or rejected, with what other files know of it."""
    table = session.store.folder("filter", manifest.key) / "measurements.parquet"
    measured = rows.find_row(table, record["row_id"]) if table.is_file() else None
    fate = [] if record.get("reasons") else _fate(session, record["row_id"])
    print("\n".join(filtered.story_lines(record, measured, fate)))


def _fate(session: Session, row_id: str) -> list[str]:
    """What the stages behind filter made of a kept row."""
    made = {plan.stage.name: plan.manifest for plan in session.plans if plan.decision == HIT}
    folders = {
        name: session.store.folder(name, manifest.key) if (manifest := made.get(name)) else None
        for name in ("prompt", "tokenize")
    }
    return filtered.fate(row_id, folders["prompt"], folders["tokenize"])


def _print_tokens(session: Session, record: dict[str, Any]) -> None:
    """Decoded tokens: masked ones dim, trained ones green; in brackets without colour."""
    from tokenizers import Tokenizer

    manifest = session.planner.artifacts.get("base") or _current(session, "base")
    folder = session.store.entry(manifest, "tokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json")) if folder else None

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=False) if tokenizer else str(ids)

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print("\n".join(rows.token_lines(record, decode, colour)))
