"""`finetune run` and `finetune rerun`: run the flow in this process.

The run is recorded by Prefect's embedded server, or by the server that PREFECT_API_URL names.
"""

import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path

import click
from rich.console import Console

from flows import messages, profiles, terminal
from flows.commands import options
from flows.plan_notes.forecast import forecast, resume_line, step_budget
from flows.session import Request, open_session, passed_on
from tasks.core import progress
from tasks.core.cache.decision import HIT, Selection
from tasks.core.cache.manifest import Manifest, read
from tasks.core.errors import PipelineError

PREFECT_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 s can be too short
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # this command prints everything itself
}


def run_here(request: Request, as_json: bool) -> int:
    """Print the plan, run the flow, and print the results.

    Raises:
        PipelineError, StageError: from planning or from a stage.
    """
    console = Console(stderr=as_json)
    with open_session(request, to_write=True) as session:
        plans, expected = session.plans, forecast(session)
        nothing = all(plan.decision == HIT for plan in plans)
        if not nothing:  # hits are shown one by one as the flow passes them
            shown = [*map(messages.plan_line, plans), messages.total(plans)]
            notes = (step_budget(session), resume_line(session), str(expected or ""))
            shown += [line for line in notes if line]
            shown.append("")
            terminal.write(console, "\n".join(shown))
        start = time.perf_counter()
        with passed_on(request, session):
            folders = run_flow(console, request)
    made = _manifests(folders)
    if as_json:
        rows = [_row(name, folder, made[name]) for name, folder in folders.items()]
        json.dump(rows, sys.stdout, indent=2)
        print()
    _conclude(console, folders, made, time.perf_counter() - start, nothing)
    if not as_json:
        told = 'Next: finetune try "..."' if "merge" in folders else "Next: finetune run"
        terminal.write(console, told + profiles.options(request.profile, request.overrides))
    return 0


def run_flow(console: Console, request: Request, name: str = "") -> dict[str, str]:
    """Call the flow with progress bars in the terminal; `name` of the run, if not the usual one."""
    for setting, value in PREFECT_SETTINGS.items():
        os.environ.setdefault(setting, value)
    with console.status("starting Prefect"):
        from flows.orchestration.local_server import start_local_server

        start_local_server()
        from flows.finetune import finetune
        from flows.orchestration.progress_sinks import TerminalSink
    with closing(TerminalSink(console)) as shown, progress.sink(shown):
        wanted = request.selection
        parameters = {
            "profile": request.profile,
            "overrides": list(request.overrides),
            "only": list(wanted.only),
            "start_from": wanted.start_from,
            "force": list(wanted.force),
            "until": wanted.until,
        }
        try:
            flow = finetune.with_options(flow_run_name=name) if name else finetune
            folders = flow(**parameters)  # type: ignore[arg-type]  # the flow validates the names
        except RuntimeError as error:
            if not str(error).startswith("Failed to reach API"):
                raise
            raise PipelineError(
                f"no Prefect server answers at {os.environ.get('PREFECT_API_URL', 'its address')}",
                "Start it with `finetune serve`, or unset PREFECT_API_URL to run without a server.",
            ) from error
        assert isinstance(folders, dict), "only a deployment run ends with a state"
        return folders


def _manifests(folders: dict[str, str]) -> dict[str, Manifest]:
    found = {name: read(Path(folder)) for name, folder in folders.items()}
    return {name: manifest for name, manifest in found.items() if manifest}


def _row(name: str, folder: str, manifest: Manifest) -> dict[str, object]:
    return {
        "stage": name,
        "key": manifest.key,
        "folder": folder,
        "seconds": manifest.seconds,
        "summary": dict(manifest.summary),
    }


def _conclude(
    console: Console,
    folders: dict[str, str],
    made: dict[str, Manifest],
    seconds: float,
    nothing: bool,
) -> None:
    """Print the last lines: duration, metrics before and after, paths of the results."""
    lines = [
        "",
        "Nothing to do: all artifacts are up to date."
        if nothing
        else f"Done in {messages.duration(seconds)}.",
    ]
    lines += [messages.before_after(made.get("evaluate"))]
    if "merge" in folders:
        lines.append(f"merged model: {folders['merge']}/model")
    if "evaluate" in folders:
        lines.append(f"report:       {folders['evaluate']}/report.html")
    terminal.write(console, "\n".join(line for i, line in enumerate(lines) if line or i == 0))


@click.command
@options.as_json
@options.takes_selection
def run(request: Request, as_json: bool) -> int:
    """Run the stages that changed.

    Ctrl-C keeps finished stages and the progress of a training; the next run continues from there.

    \b
    Examples:
      finetune run
      finetune run --until tokenize
      finetune run --profile cpu_demo --set train.max_steps=40
    """
    return run_here(request, as_json)


@click.command
@options.stage_argument(name="stages", nargs=-1, required=True, metavar="STAGE...")
@options.takes_settings
def rerun(request: Request, stages: tuple[str, ...]) -> int:
    """Run these stages again, even if nothing changed.

    \b
    Example:
      finetune rerun evaluate
    """
    selection = Selection(only=stages, force=stages)
    return run_here(Request(request.profile, request.overrides, selection), as_json=False)
