"""`finetune show`: contents of the artifacts, down to one row and its trained and masked tokens."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from flows import messages, profiles, terminal
from flows.commands.options import RUN_ID, as_json, stage_argument, takes_settings
from flows.commands.show import filtered, rows
from flows.commands.show.summaries import artifact_lines, to_json
from flows.commands.show.tokens import TokenView, token_lines
from flows.session import Request, open_session
from flows.store_access import current_artifact, open_store, plan_of, root
from tasks.core.artifacts import runs
from tasks.core.cache import manifest as manifests
from tasks.core.cache.decision import HIT, Selection
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
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
NO_ARTIFACT = "not run with these settings, this data and this code"
MAX_DIGITS = 12  # of a row number; a row id is longer


@dataclass(frozen=True)
class ShownArtifacts:
    """The artifacts of the settings or of a run, by stage."""

    store: Store
    made: Mapping[str, Manifest]

    def folder(self, manifest: Manifest) -> Path:
        """Folder of an artifact."""
        return self.store.folder(manifest.stage, manifest.key)


@click.command
@stage_argument(metavar="[STAGE]", required=False)
@click.option("--row", metavar="N", help="One row of the stage: its number or id.")
@click.option("--ids", is_flag=True, help="With tokenize --row: one line per token, with its id.")
@click.option("--run", "run", metavar="RUN", help=f"Artifacts of this run: {RUN_ID}.")
@as_json
@takes_settings
def show(
    request: Request, stage: str | None, row: str | None, ids: bool, run: str | None, as_json: bool
) -> int:
    """Show the results of all stages, of one, or one row.

    \b
    Examples:
      finetune show
      finetune show filter              how many rows each rule removed
      finetune show tokenize --row 0    a row as the model sees it
    """
    if stage is None and (row is not None or ids):
        raise PipelineError(
            "--row and --ids need a stage", "For example: finetune show tokenize --row 0"
        )
    if run is not None:
        with open_store() as store:
            return _show(_of_run(store, run), stage, row, ids, as_json)
    if stage is not None and row is None:  # a row is followed through the later stages
        request = replace(request, selection=Selection(only=(stage,)))
    with open_session(request) as session:
        hits = [plan for plan in session.plans if plan.decision == HIT and plan.manifest]
        made = {plan.stage.name: plan.manifest for plan in hits if plan.manifest}
        if stage is None and not as_json:
            lines = (
                f"{plan.stage.name:<10}"
                f"{messages.summary_line(made.get(plan.stage.name)) or NO_ARTIFACT}"
                for plan in session.plans
            )
            terminal.show("\n".join(lines))
            if len(made) < len(session.plans) and profiles.last_run():
                terminal.show("Results of the last run: finetune show --run -1")
            return 0
        if stage is not None:
            made[stage] = current_artifact(plan_of(session, stage))
        artifacts = ShownArtifacts(session.store, {**session.planner.artifacts, **made})
        return _show(artifacts, stage, row, ids, as_json)


def _of_run(store: Store, run: str) -> ShownArtifacts:
    """The artifacts of a recorded run that still exist."""
    keys = runs.read(root(), run).keys.items()
    found = {stage: manifests.read(store.folder(stage, key)) for stage, key in keys}
    return ShownArtifacts(store, {stage: made for stage, made in found.items() if made})


def _show(
    artifacts: ShownArtifacts, stage: str | None, row: str | None, ids: bool, as_json: bool
) -> int:
    if stage is None:
        if as_json:
            made = artifacts.made.values()
            print(json.dumps([to_json(m, artifacts.folder(m)) for m in made], indent=2))
        else:
            lines = (f"{n:<10}{messages.summary_line(m)}" for n, m in artifacts.made.items())
            terminal.show("\n".join(lines))
        return 0
    if stage not in artifacts.made:
        raise PipelineError(
            f"the run has no artifact of stage {stage}, or it was removed",
            f"Stages with one: {', '.join(artifacts.made) or 'none'}.",
        )
    manifest = artifacts.made[stage]
    if row is not None:
        _print_row(artifacts, manifest, row, ids)
    elif as_json:
        print(json.dumps(to_json(manifest, artifacts.folder(manifest)), indent=2))
    else:
        terminal.show("\n".join(artifact_lines(manifest, artifacts.folder(manifest))))
    return 0


def _print_row(artifacts: ShownArtifacts, manifest: Manifest, wanted: str, ids: bool) -> None:
    """Print one row, found by its number in the main table or by its id."""
    stage = manifest.stage
    if stage not in MAIN_TABLE:
        raise PipelineError(
            f"stage {stage} has no table of rows", f"Stages with rows: {', '.join(MAIN_TABLE)}."
        )
    is_number = wanted.isdecimal() and len(wanted) < MAX_DIGITS
    others = () if is_number else OTHER_TABLES.get(stage, ())
    tables = _tables(artifacts.store, manifest, (MAIN_TABLE[stage], *others))
    for entry, table in tables.items():
        record = rows.find_row(table, wanted, is_number)
        if record is None:
            continue
        if stage == "tokenize":
            _print_tokens(artifacts, record, ids)
        elif stage == "filter":
            _print_history(artifacts, manifest, record)
        else:
            _print_fields(entry, record)
        return
    raise PipelineError(f"stage {stage} has no row {wanted!r}", rows.numbers(tables))


def _tables(store: Store, manifest: Manifest, wanted: Iterable[tuple[str, str]]) -> dict[str, Path]:
    """Path of each entry's table."""
    folders = ((entry, store.entry(manifest, entry), file) for entry, file in wanted)
    return {e: folder / file if file else folder for e, folder, file in folders if folder}


def _print_fields(entry: str, record: Mapping[str, Any]) -> None:
    print(f"[{entry}]")
    for name, value in record.items():
        text = escape_controls(readable(str(value)))
        print(f"\n{name}:\n{text}" if "\n" in text else f"{name}: {text}")


def _print_history(artifacts: ShownArtifacts, manifest: Manifest, record: dict[str, Any]) -> None:
    """Print a kept or rejected row with its measurements and its use downstream."""
    table = artifacts.folder(manifest) / "measurements.parquet"
    measured = rows.find_row(table, record["row_id"]) if table.is_file() else None
    use = [] if record.get("reasons") else _downstream(artifacts, record["row_id"])
    print("\n".join(filtered.history_lines(record, measured, use)))


def _downstream(artifacts: ShownArtifacts, row_id: str) -> list[str]:
    """How the stages after filter used a kept row."""
    folders = {
        name: artifacts.folder(manifest) if (manifest := artifacts.made.get(name)) else None
        for name in ("prompt", "tokenize")
    }
    return filtered.downstream(row_id, folders["prompt"], folders["tokenize"])


def _print_tokens(artifacts: ShownArtifacts, record: dict[str, Any], ids: bool) -> None:
    """Print masked tokens dim and trained ones green; in brackets without colors."""
    manifest = artifacts.made.get("base")
    folder = artifacts.store.entry(manifest, "tokenizer") if manifest else None
    if folder is None:
        raise PipelineError(
            "the artifact of stage base is missing, whose tokenizer shows the tokens",
            "Run `finetune run --only base` first, with the same --profile and --set.",
        )
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print("\n".join(token_lines(record, TokenView.of(folder), color, ids)))
