"""`finetune plan` and `finetune explain`: read-only; they import neither Prefect nor torch."""

import json
from collections.abc import Iterator

import click

from flows import messages, terminal
from flows.commands import options
from flows.plan_notes.forecast import forecast, resume_line, step_budget
from flows.plan_notes.model_notes import model_notes
from flows.session import Request, open_session
from flows.store_access import plan_of
from tasks.core.cache.causes import module_file
from tasks.core.cache.decision import HIT, StagePlan
from tasks.core.system.home import short_path

WORK_TO_DO = 10


def print_plan(request: Request, as_json: bool) -> int:
    """Print the plan and return 0 if there is nothing to do, else 10."""
    with open_session(request) as session:
        plans, expected, noted = session.plans, forecast(session), model_notes(session)
        budget, resumed = step_budget(session), resume_line(session)
    if as_json:
        entries = [plan.to_json() for plan in plans]
        for entry in entries:
            if expected and entry["stage"] == "train":
                entry["forecast"] = expected.to_json()
            if budget and entry["stage"] == "train":
                entry["steps"] = budget
            if entry["stage"] == "base":
                entry["notes"] = noted
        print(json.dumps(entries, indent=2))
    else:
        lines = [*map(messages.plan_line, plans), messages.total(plans)]
        lines += [str(line) for line in (budget, resumed, expected) if line]
        if any(plan.decision != HIT for plan in plans):
            lines += noted
        terminal.show("\n".join(lines))
    return 0 if all(plan.decision == HIT for plan in plans) else WORK_TO_DO


def print_explanation(request: Request, stage: str) -> int:
    """Print everything that is known about the decision for one stage."""
    with open_session(request.leading_to(stage)) as session:
        plan = plan_of(session, stage)
        folder = session.store.folder(stage, plan.manifest.key) if plan.manifest else None
    lines = [
        messages.plan_line(plan) if plan.decision == HIT else f"{stage:<10}{plan.decision}",
        "",
    ]
    lines.append(f"key        {plan.key or 'unknown until its inputs exist'}")
    lines.append(f"reads      {', '.join(plan.stage.inputs) or 'external sources'}")
    lines.append(f"settings   {', '.join(plan.stage.reads)}")
    if plan.decision != HIT:
        for cause in plan.causes:
            lines.append(f"cause      {messages.cause_line(cause)}")
    if plan.manifest and folder:
        kind = "artifact" if plan.decision == HIT else "nearest"
        lines.append(f"{kind:<11}{short_path(str(folder))}")
        seconds = messages.duration(plan.manifest.seconds)
        created = messages.moment(plan.manifest.made.get("created"))
        lines.append(f"{'created':<11}{created} in {seconds}")
    terminal.show("\n".join([*lines, *_part_lines(plan)]))
    return 0


def _part_lines(plan: StagePlan) -> Iterator[str]:
    """The parts of the cache key, one per line, so that two keys can be compared."""
    parts = plan.parts or (plan.manifest.parts if plan.manifest else {})
    for group in ("config", "inputs", "sources", "env"):
        for name, value in parts.get(group, {}).items():
            # as in a profile
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{group:<11}{name} = {shown if len(shown) <= 80 else shown[:77] + '...'}"
    by_folder: dict[str, list[str]] = {}
    for module in parts.get("code", {}):
        folder, _, name = module_file(module).rpartition("/")
        by_folder.setdefault(folder, []).append(name)
    for folder, files in sorted(by_folder.items()):
        yield f"{'code':<11}{folder}: {', '.join(sorted(files))}"


@click.command
@options.as_json
@options.takes_selection
def plan(request: Request, as_json: bool) -> int:
    """Show which stages would run, why, and what that costs.

    \b
    HIT    its stored result is used
    RUN    it runs, for the reason shown
    MAYBE  it runs if an earlier stage changes its output

    Exit code 10 if there is work to do, 0 if not.

    \b
    Example:
      finetune plan --set train.max_steps=100
    """
    return print_plan(request, as_json)


@click.command
@options.stage_argument()
@options.takes_settings
def explain(request: Request, stage: str) -> int:
    """Explain in full why a stage runs or not.

    Lists all that its result depends on, and what of it changed.

    \b
    Example:
      finetune explain train
    """
    return print_explanation(request, stage)
