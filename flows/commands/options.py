"""Arguments and options that several commands share, as click decorators.

`takes_settings` and `takes_selection` collect their options into one `Request`, which the command
receives as its first argument.
"""

import functools
from collections.abc import Callable
from typing import Any

import click

from flows import profiles
from flows.session import Request
from tasks.core.cache.decision import Selection
from tasks.pipeline import PIPELINE

STAGES = tuple(stage.name for stage in PIPELINE)
RUN_ID = "id from `finetune runs`, its beginning, or -1 for the last"
# -1 and -2 name runs; click takes them for options unless unknown options count as arguments
RUN_IDS = {"ignore_unknown_options": True}
Function = Callable[..., int]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
because = click.option(
    "--because", default="", metavar="TEXT", help="Reason, shown by `finetune champion`."
)


def stage_argument(
    name: str = "stage", metavar: str = "STAGE", **parameters: Any
) -> Callable[[Function], Function]:
    """An argument that takes the name of a stage."""
    names = f"One of {', '.join(STAGES)}."
    return click.argument(
        name, type=click.Choice(STAGES), metavar=metavar, help=names, **parameters
    )


def takes_settings(function: Function) -> Function:
    """Add --profile and --set."""

    @click.option(
        "--profile",
        metavar="NAME|FILE",
        shell_complete=_complete_profile,
        help="Name or YAML file of a profile. Default: FINETUNE_PROFILE, else finetune.yaml in "
        "this folder, else that of the last run.",
    )
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="section.field=value",
        help="Override one setting (repeatable), such as train.max_steps=100.",
    )
    @functools.wraps(function)
    def command(profile: str | None, overrides: tuple[str, ...], **others: Any) -> int:
        if profile is not None:
            return function(Request(profiles.absolute(profile), overrides), **others)
        default = profiles.default()
        if not others.get("run"):  # a recorded run has its own settings
            click.echo(default, err=True)
        return function(Request(default.profile, default.overrides + overrides), **others)

    return command


def _complete_profile(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[Any]:
    """Names of profiles; of files where no name fits."""
    from click.shell_completion import CompletionItem  # imported here: only a shell needs it

    known = [name for name in profiles.names() if name.startswith(incomplete)]
    return [*map(CompletionItem, known)] or [CompletionItem(incomplete, type="file")]


def takes_selection(function: Function) -> Function:
    """Add --profile, --set, --only, --from, --until and --force."""
    stage: dict[str, Any] = {"type": click.Choice(STAGES), "metavar": "STAGE"}

    @click.option("--only", multiple=True, help="Only this stage (repeatable).", **stage)
    @click.option("--from", "start_from", help="This stage and all later ones.", **stage)
    @click.option("--until", help="This stage and all earlier ones.", **stage)
    @click.option(
        "--force",
        multiple=True,
        help="Run this stage even if nothing changed (repeatable).",
        **stage,
    )
    @takes_settings
    @functools.wraps(function)
    def command(
        request: Request,
        only: tuple[str, ...],
        start_from: str | None,
        until: str | None,
        force: tuple[str, ...],
        **others: Any,
    ) -> int:
        selection = Selection(only, start_from, force, until)
        return function(Request(request.profile, request.overrides, selection), **others)

    return command
