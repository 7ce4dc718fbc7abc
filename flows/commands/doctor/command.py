"""`finetune doctor`: finds what keeps runs from running; every finding has a remedy.

`--fix` applies the remedies that lose nothing: it marks runs whose process is gone, sweeps what
dead runs left, and sets up pool and deployments. It starts and installs nothing.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.core.errors import PipelineError


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        name: What was looked at.
        problem: What was found, with the value wanted.
        remedy: What to do, as an imperative sentence.
        fix: Does it; None where that is for a person to decide.
    """

    name: str
    problem: str
    remedy: str
    fix: Callable[[], None] | None = None


Check = Callable[[], Sequence[Finding]]


def checks() -> tuple[Check, ...]:
    """Everything that is looked at, in order."""
    from flows.commands.doctor import machine
    from flows.orchestration import server_checks

    return (
        machine.disk,
        machine.leftovers,
        machine.sandbox,
        machine.quantization,
        server_checks.prefect_side,
    )


def doctor(fix: bool, as_json: bool) -> int:
    """Look, tell, and with `fix` mend; 0 if nothing is wrong (any more), else 1."""
    findings = [finding for check in checks() for finding in check()]
    mended = [f for f in findings if fix and _is_mended(f)]
    if as_json:
        print(json.dumps([_row(f, f in mended) for f in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.name}: {finding.problem}")
            if finding in mended:
                print("  mended")
            else:
                hint = "  (--fix does it)" if finding.fix and not fix else ""
                print(f"  {finding.remedy}{hint}")
        left = len(findings) - len(mended)
        print(f"{len(findings)} found, {len(mended)} mended." if left else _well(len(mended)))
    return 1 if len(findings) > len(mended) else 0


def _is_mended(finding: Finding) -> bool:
    """Apply a finding's remedy; one that fails is told and keeps no other from being tried."""
    if finding.fix is None:
        return False
    try:
        finding.fix()
    except (PipelineError, OSError) as error:
        print(f"{finding.name}: could not be mended: {error}", file=sys.stderr)
        return False
    return True


def _well(mended: int) -> str:
    return f"All is well; {mended} mended." if mended else "All is well."


def _row(finding: Finding, mended: bool) -> dict[str, object]:
    return {
        "name": finding.name,
        "problem": finding.problem,
        "remedy": finding.remedy,
        "fixable": finding.fix is not None,
        "mended": mended,
    }
