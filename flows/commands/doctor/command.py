"""`finetune doctor`: finds what prevents runs, each finding with its remedy.

`--fix` applies the remedies that lose nothing: it marks runs whose process is gone as crashed,
removes leftovers of dead runs, and sets up work pool and deployments. It starts and installs
nothing.
"""

import json
import sys

import click

from flows.commands import options
from flows.finding import Check, Finding
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
    """Find what prevents runs, and the remedy."""
    return examine(fix, as_json)


def examine(fix: bool, as_json: bool) -> int:
    """Run all checks, and fix what they find if asked; 0 if no fault is left, else 1."""
    findings = [finding for check in checks() for finding in check()]
    fixed = [f for f in findings if fix and _is_fixed(f)]
    left = len(findings) - len(fixed)
    if as_json:
        print(json.dumps([_row(f, f in fixed) for f in findings], indent=2))
    else:
        _print_sandbox()
        for finding in findings:
            print(f"{finding.name}: {finding.problem}")
            if finding in fixed:
                print("  fixed")
            else:
                hint = "  (or run with --fix)" if finding.fix and not fix else ""
                print(f"  {finding.remedy}{hint}")
        count = f"{len(findings)} found, {len(fixed)} fixed."
        print(count if findings else "No problems found.")
    return 1 if left else 0


def _print_sandbox() -> None:
    """Name the sandbox that generated code will run under; a missing one is a finding."""
    from flows.commands.doctor import machine

    level, reason = machine.sandbox_level()
    if level:
        print(f"Generated code runs under {level}{f' ({reason})' if reason else ''}.")


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
        "fixable": finding.fix is not None,
        "mended": fixed,
    }
