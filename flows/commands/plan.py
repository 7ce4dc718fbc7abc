"""`finetune plan` and `finetune explain`: read-only; they import neither Prefect nor torch."""

import json

import click

from flows import messages
from flows.commands import options
from flows.forecast import forecast, step_budget
from flows.model_notes import model_notes
from flows.session import Request, open_session
from tasks.core.cache.decision import HIT, StagePlan

WORK_TO_DO = 10


def print_plan(request: Request, as_json: bool) -> int:
    """Print the plan and return 0 if there is nothing to do, else 10."""
    with open_session(request) as session:
        plans, expected, noted = session.plans, forecast(session), model_notes(session)
        budget = step_budget(session)
    if as_json:
        told = [plan.to_json() for plan in plans]
        for entry in told:
            if expected and entry["stage"] == "train":
                entry["forecast"] = expected.to_json()
            if budget and entry["stage"] == "train":
                entry["steps"] = budget
            if entry["stage"] == "base":
                entry["notes"] = noted
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(messages.plan_line(plan) for plan in plans))
        print(messages.total(plans))
        if budget:
            print(budget)
        if expected:
            print(expected)
        if any(plan.decision != HIT for plan in plans):
            print("\n".join(noted), end="\n" if noted else "")
    return 0 if all(plan.decision == HIT for plan in plans) else WORK_TO_DO


def print_explanation(request: Request, stage: str) -> int:
    """Print everything that is known about the decision for one stage."""
    with open_session(request) as session:
        plan = next(p for p in session.plans if p.stage.name == stage)
        folder = session.store.folder(stage, plan.manifest.key) if plan.manifest else None
    print(f"{messages.plan_line(plan)}\n")
    print(f"key        {plan.key or 'unknown until its inputs exist'}")
    print(f"reads      {', '.join(plan.stage.inputs) or 'external sources'}")
    print(f"settings   {', '.join(plan.stage.reads)}")
    if plan.decision != HIT:
        for cause in plan.causes:
            print(f"cause      {messages.cause_line(cause)}")
    if plan.manifest and folder:
        kind = "artifact" if plan.decision == HIT else "nearest"
        print(f"{kind:<11}{folder}")
        seconds = messages.duration(plan.manifest.seconds)
        print(f"{'created':<11}{plan.manifest.made.get('created')} in {seconds}")
    _print_parts(plan)
    return 0


def _print_parts(plan: StagePlan) -> None:
    """Print the parts of the cache key, one per line, so that two keys can be compared."""
    parts = plan.parts or (plan.manifest.parts if plan.manifest else {})
    for group in ("config", "inputs", "sources", "env"):
        for name, value in parts.get(group, {}).items():
            shown = str(value)
            print(f"{group:<11}{name} = {shown if len(shown) <= 80 else shown[:77] + '...'}")
    for module in parts.get("code", {}):
        print(f"{'code':<11}{module.replace('.', '/')}.py")


@click.command
@options.as_json
@options.takes_selection
def plan(request: Request, as_json: bool) -> int:
    """Show which stages would run, why, and what that costs."""
    return print_plan(request, as_json)


@click.command
@options.stage_argument()
@options.takes_settings
def explain(request: Request, stage: str) -> int:
    """Explain the decision for one stage in full."""
    return print_explanation(request, stage)
