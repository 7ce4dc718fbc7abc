"""`finetune show`: what the artifacts hold, down to one row and its trained and masked tokens."""

import json
import sys
from pathlib import Path
from typing import Any

from flows import show_filter, words
from flows.session import Request, Session, open_session
from tasks.core.changes import SOURCES
from tasks.core.errors import PipelineError
from tasks.core.manifest import Manifest
from tasks.core.plan import HIT

# the table that --row looks into, by stage: entry of the artifact and file in it
MAIN_TABLE = {
    "ingest": ("rows", ""),
    "filter": ("kept", ""),
    "prompt": ("train", ""),
    "tokenize": ("train", "rows.parquet"),
    "evaluate": ("rows", ""),
}
OTHER_TABLES = {"filter": (("rejected", ""),)}


def show(request: Request, stage: str | None, row: str | None) -> int:
    """Print all artifacts in a line each, one artifact in full, or one row of it."""
    with open_session(request) as session:
        if stage is None:
            for plan in session.plans:
                state = words.summary_line(plan.manifest) if plan.verdict == HIT else plan.verdict
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
    if plan.verdict != HIT or plan.manifest is None:
        raise PipelineError(
            f"stage {stage} has no artifact for these settings ({words.reason(plan)})",
            "Run `finetune run` first, with the same --profile and --set.",
        )
    return plan.manifest


def _print_artifact(session: Session, manifest: Manifest) -> None:
    """Counts, measured values, extra JSON files, and where everything lies."""
    folder = session.store.folder(manifest.stage, manifest.key)
    summary = manifest.summary
    print(f"{manifest.stage}: {summary.get('line', '')}")
    print(f"{folder}\nmade {manifest.made.get('created')} in {words.duration(manifest.seconds)}")
    if manifest.stage == "filter" and (funnel := folder / "funnel.json").is_file():
        print("\n".join(["", *show_filter.funnel_lines(json.loads(funnel.read_bytes()))]))
        return
    for group in ("counts", "metrics"):
        for name, value in summary.get(group, {}).items():
            print(f"  {name:<40}{value:>14,}")
    for name, file in manifest.files.items():
        print(f"  {name:<60}{file.size:>14,} bytes")
    for path in sorted(folder.glob("*.json")):
        if path.name not in ("manifest.json", SOURCES):
            text = json.dumps(json.loads(path.read_bytes()), indent=1, ensure_ascii=False)
            print(f"\n{path.name}\n{text[:4000]}")


def _print_row(session: Session, manifest: Manifest, wanted: str) -> None:
    """One row by number or by row id."""
    stage = manifest.stage
    if stage not in MAIN_TABLE:
        raise PipelineError(
            f"stage {stage} has no table of rows", f"Stages with rows: {', '.join(MAIN_TABLE)}."
        )
    for entry, file in (MAIN_TABLE[stage], *OTHER_TABLES.get(stage, ())):
        folder = session.store.entry(manifest, entry)
        record = _find_row(folder / file if file else folder, wanted) if folder else None
        if record is None:
            continue
        if stage == "tokenize":
            _print_tokens(session, record)
            return
        if stage == "filter":
            _print_story(session, manifest, record)
            return
        print(f"[{entry}]")
        for name, value in record.items():
            print(f"\n{name}:\n{value}" if "\n" in str(value) else f"{name}: {value}")
        return
    raise PipelineError(
        f"stage {stage} has no row {wanted!r}",
        f"Give a number from 0 to {int(manifest.summary.get('rows_out') or 1) - 1}, or a row id.",
    )


def _print_story(session: Session, manifest: Manifest, record: dict[str, Any]) -> None:
    """A row of kept or rejected, with what other files know of it."""
    table = session.store.folder("filter", manifest.key) / "measurements.parquet"
    measured = _find_row(table, record["row_id"]) if table.is_file() else None
    fate = [] if record.get("reasons") else _fate(session, record["row_id"])
    print("\n".join(show_filter.story_lines(record, measured, fate)))


def _fate(session: Session, row_id: str) -> list[str]:
    """What the stages behind filter made of a kept row."""
    made = {plan.stage.name: plan.manifest for plan in session.plans if plan.verdict == HIT}
    folders = {
        name: session.store.folder(name, manifest.key) if (manifest := made.get(name)) else None
        for name in ("prompt", "tokenize")
    }
    return show_filter.fate(row_id, folders["prompt"], folders["tokenize"])


def _find_row(table: Path, wanted: str) -> dict[str, Any] | None:
    """The row with this number or row id; None if there is none."""
    import pyarrow.parquet as pq

    position = 0
    for batch in pq.ParquetFile(table).iter_batches():
        if wanted.isdecimal() and len(wanted) < 12:
            index = int(wanted) - position
        else:
            ids = batch.column("row_id").to_pylist() if "row_id" in batch.schema.names else []
            index = ids.index(wanted) if wanted in ids else -1
        if 0 <= index < batch.num_rows:
            return dict(batch.slice(index, 1).to_pylist()[0])
        position += batch.num_rows
    return None


def _print_tokens(session: Session, record: dict[str, Any]) -> None:
    """Decoded tokens: masked ones dim, trained ones green; in brackets without colour."""
    from tokenizers import Tokenizer

    manifest = session.planner.artifacts.get("base") or _current(session, "base")
    folder = session.store.entry(manifest, "tokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json")) if folder else None
    colour = sys.stdout.isatty()
    ids, masked = record["input_ids"], record["prompt_tokens"]
    print(
        f"row {record['row_id']}: {len(ids)} tokens, {masked} masked, {len(ids) - masked} trained"
    )
    for name, part, code in (("masked", ids[:masked], "2"), ("trained", ids[masked:], "32")):
        text = tokenizer.decode(part, skip_special_tokens=False) if tokenizer else str(part)
        plain = f"[{name}]\n{text}\n[/{name}]"
        print(f"\x1b[{code}m{text}\x1b[0m" if colour else plain, end="")
    print()
