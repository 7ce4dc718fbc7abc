"""`finetune doctor`: finds what prevents runs, each finding with its remedy.

`--fix` applies the remedies that lose nothing: it marks runs whose process is gone as crashed,
removes leftovers of dead runs, and sets up work pool and deployments. It starts and installs
nothing.
"""

import json
import sys

import click

from flows import messages, terminal
from flows.commands import options
from flows.orchestration.finding import Check, Finding
from tasks.core.errors import PipelineError


def checks() -> tuple[Check, ...]:
    """All checks, in order."""
    from flows.commands.doctor import machine
    from flows.orchestration import server_checks

    return (
        machine.disk,
        machine.leftovers,
        machine.sandbox,
        machine.quantization,
        server_checks.check_server,
    )


@click.command
@click.option("--fix", is_flag=True, help="Apply the remedies that lose nothing.")
@options.as_json
def doctor(fix: bool, as_json: bool) -> int:
    """Find what prevents runs, and the remedy.

    Exit code 1 if something does.
    """
    return examine(fix, as_json)


def examine(fix: bool, as_json: bool) -> int:
    """Run all checks, and fix what they find if asked; 0 if no fault is left, else 1.

    A note does not prevent `finetune run`.
    """
    findings: list[Finding] = []
    for check in checks():
        found = list(check())
        findings += found
        if not found and not as_json:
            _print_good(check)
    fixed = [f for f in findings if fix and _is_fixed(f)]
    left = [f for f in findings if f not in fixed]
    faults = sum(not finding.is_note for finding in left)
    if as_json:
        print(json.dumps([_row(f, f in fixed) for f in findings], indent=2))
    else:
        for finding in findings:
            _print_finding(finding, fixed, fix)
        notes = len(left) - faults
        counts = [messages.plural(faults, "fault"), messages.plural(notes, "note")]
        print(", ".join([*counts, *([f"{len(fixed)} fixed"] if fixed else [])]) + ".")
    return 1 if faults else 0


def _print_good(check: Check) -> None:
    """Print one line for a check that passed."""
    from flows.commands.doctor import machine
    from flows.orchestration import server_checks

    texts = {**machine.in_order(), server_checks.check_server: server_checks.server_in_order}
    if text := texts.get(check):
        terminal.show(f"ok     {check.__name__.removeprefix('check_'):<14}{text()}")


def _print_finding(finding: Finding, fixed: list[Finding], fix: bool) -> None:
    kind = "note" if finding.is_note else "fault"
    terminal.show(f"{kind:<7}{finding.name:<14}{finding.problem}")
    if finding in fixed:
        print(f"{'':<21}fixed")
        return
    hint = "  (or run with --fix)" if finding.fix and not fix else ""
    terminal.show(f"{'':<21}{finding.remedy}{hint}")


def _is_fixed(finding: Finding) -> bool:
    """Apply a remedy; a failure is printed and does not stop the others."""
    if finding.fix is None:
        return False
    try:
        finding.fix()
    except (PipelineError, OSError) as error:
        print(f"{finding.name}: not fixed: {error}", file=sys.stderr)
        return False
    return True


def _row(finding: Finding, fixed: bool) -> dict[str, object]:
    return {
        "name": finding.name,
        "problem": finding.problem,
        "remedy": finding.remedy,
        "note": finding.is_note,
        "fixable": finding.fix is not None,
        "mended": fixed,
    }
