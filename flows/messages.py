"""Messages about a plan and a run, the same in the terminal and on Prefect's pages."""

from collections.abc import Sequence

from tasks.core.cache.causes import Cause, in_words
from tasks.core.cache.decision import HIT, MAYBE, RUN, StagePlan
from tasks.core.cache.manifest import Manifest
from tasks.core.text import durations
from tasks.pipeline import PIPELINE

MANY = {"code": "modules", "env": "packages"}  # kinds of which one change has many causes
SHOWN_CAUSES = 2
# parts of the names of metrics, and how their values are written
SHARES = ("accuracy", "similarity", "match", "agreement", "pass_at", "share")
UNITS = {"gib": "GiB", "loss": "nats", "bits": "bits", "seconds": "s"}
VERDICTS = ("improved", "inconclusive", "regressed")


def duration(seconds: float | None) -> str:
    """Seconds as `tasks.core.text.durations` writes them; "" if unknown."""
    return "" if seconds is None else durations.duration(seconds)


def moment(iso: str | None) -> str:
    """A recorded time, ISO 8601 in UTC, as "2026-01-02 03:04:05 UTC"."""
    return (iso or "").replace("T", " ").replace("+00:00", " UTC")


def age(seconds: float) -> str:
    """A time ago as "3 min", "5 h" or "12 days"."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length * (2 if unit == "days" else 1):
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def size(of_bytes: float) -> str:
    """Bytes as "12.3 KiB", "4.5 MiB" or "6.7 GiB"."""
    for unit in ("bytes", "KiB", "MiB"):
        if of_bytes < 1024:
            return f"{of_bytes:,.0f} bytes" if unit == "bytes" else f"{of_bytes:.1f} {unit}"
        of_bytes /= 1024
    return f"{of_bytes:,.1f} GiB"


def plural(number: int, noun: str) -> str:
    """ "1 note", "2 notes"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def stage_names(names: Sequence[str]) -> str:
    """Stages as a list, or "all stages"."""
    everything = [stage.name for stage in PIPELINE]
    return "all stages" if list(names) == everything else ", ".join(names)


def verdict(evaluate: Manifest | None) -> str:
    """The verdict of an evaluation; "" without one."""
    last = summary_line(evaluate).rpartition(": ")[2]
    return last if last in VERDICTS else ""


def short_reason(plan: StagePlan) -> str:
    """The reason for a decision in a message about something else."""
    shown = brief(plan.causes) if plan.decision == RUN else [reason(plan)]
    more = f"; {len(shown) - SHOWN_CAUSES} more" if len(shown) > SHOWN_CAUSES else ""
    return "; ".join(shown[:SHOWN_CAUSES]) + more


def reason(plan: StagePlan) -> str:
    """The reason for a decision; for a HIT, the summary of the artifact."""
    if plan.decision == HIT:
        return summary_line(plan.manifest)
    if plan.decision == MAYBE:
        return f"if {' or '.join(c.what for c in plan.causes)} changes its output"
    return "; ".join(brief(plan.causes))


def brief(causes: Sequence[Cause]) -> list[str]:
    """Causes as a plan shows them; `finetune explain` shows all.

    Of many modules or packages the first. Sources that came or went with a setting, and the parsers
    that they need, follow from that setting.
    """
    if any(cause.kind == "config" for cause in causes):
        causes = [c for c in causes if c.kind != "data" or (c.old is None) == (c.new is None)]
    shown = [str(cause) for cause in causes if cause.kind not in MANY]
    for kind, many in MANY.items():
        of_kind = [cause for cause in causes if cause.kind == kind]
        if len(of_kind) <= SHOWN_CAUSES:
            shown += map(str, of_kind)
        else:
            names = ", ".join(cause.what for cause in of_kind[:SHOWN_CAUSES])
            shown.append(f"{kind} of {len(of_kind)} {many} ({names}, ...)")
    return shown


def cause_line(cause: Cause) -> str:
    """A cause in full: all changed functions, and the first digits of data digests."""
    if cause.kind == "code":
        return f"code {cause.what} ({in_words(cause.detail)})"
    if cause.kind == "data" and (cause.old or cause.new):
        old, new = (str(value)[:12] if value else "none" for value in (cause.old, cause.new))
        return f"{Cause('data', cause.what, detail=cause.detail)} {old} -> {new}"
    return str(cause)


def summary_line(manifest: Manifest | None) -> str:
    """The summary that a stage wrote about its run."""
    return str(manifest.summary.get("line", "")) if manifest else ""


def plan_line(plan: StagePlan) -> str:
    """One line of the plan."""
    cost = duration(plan.expected_seconds) if plan.decision != HIT else ""
    return f"{plan.stage.name:<10}{plan.decision:<7}{reason(plan)}" + (f"  ~{cost}" if cost else "")


def total(plans: Sequence[StagePlan]) -> str:
    """The last line of a plan: number of stages to run and the expected duration."""
    open_plans = [p for p in plans if p.decision != HIT]
    if not open_plans:
        return "Nothing to do: every stage's artifact is up to date."
    known = [p.expected_seconds for p in open_plans if p.expected_seconds is not None]
    cost = f"; about {duration(sum(known))} based on past runs" if known else ""
    unknown = len(open_plans) - len(known)
    more = f" ({unknown} never ran here)" if unknown and known else ""
    return f"{len(open_plans)} of {len(plans)} stages to run or check{cost}{more}."


def plan_markdown(plans: Sequence[StagePlan]) -> str:
    """The plan as a table for Prefect's page."""
    rows = [
        f"| {p.stage.name} | {p.decision} | {duration(p.expected_seconds)} "
        f"| {_cell(reason(p))} | {f'`{p.key[:12]}`' if p.key else ''} |"
        for p in plans
    ]
    # long cells last: the page does not wrap lines
    head = "| stage | decision | expected | why | key |\n|---|---|---|---|---|\n"
    return f"{total(plans)}\n\n{head}" + "\n".join(rows) + "\n"


def ran_markdown(ran: Sequence[tuple[StagePlan, Manifest]], flow_run: str) -> str:
    """The stages that ran, with reason, duration and result, as a table for Prefect's page."""
    rows = []
    for plan, manifest in ran:
        why = "" if plan.decision == HIT else reason(plan)
        took = how_made(plan, manifest, flow_run)
        result = _cell(summary_line(manifest))
        rows.append(f"| {plan.stage.name} | {took} | {_cell(why)} | {result} |")
    count = sum(plan.decision != HIT and is_own(m, flow_run) for plan, m in ran)
    head = "| stage | took | ran because | result |\n|---|---|---|---|\n"
    return f"{count} of {len(ran)} stages ran.\n\n{head}" + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def starting(plan: StagePlan, seen: StagePlan | None = None) -> str:
    """Line printed when a stage begins.

    Args:
        plan: Of the stage.
        seen: The plan that the user has seen; its reason is not repeated.
    """
    why = reason(plan)
    is_known = seen is not None and seen.decision == plan.decision and reason(seen) == why
    return f"{plan.stage.name}: runs" if is_known else f"{plan.stage.name}: runs, reason: {why}"


def finished(plan: StagePlan, manifest: Manifest, flow_run: str) -> str:
    """Line printed when a stage is done: duration and summary."""
    return f"{plan.stage.name:<10}{how_made(plan, manifest, flow_run):<13} {summary_line(manifest)}"


def how_made(plan: StagePlan, manifest: Manifest, flow_run: str) -> str:
    """Duration of a stage in this run; "cached", or "by another run" if that created the artifact
    while this run waited for its lock."""
    if plan.decision == HIT:
        return "cached"
    return duration(manifest.seconds) if is_own(manifest, flow_run) else "by another run"


def is_own(manifest: Manifest, flow_run: str) -> bool:
    """Whether a flow run created an artifact itself."""
    return manifest.made.get("flow_run") == flow_run


def before_after(evaluate: Manifest | None) -> str:
    """Loss and token accuracy of base and tuned in one line; "" without an evaluation."""
    if evaluate is None:
        return ""
    m = evaluate.summary.get("metrics", {})
    try:
        return (
            f"base -> tuned: loss {m['base_loss']:.3f} -> {m['tuned_loss']:.3f}, "
            f"token accuracy {100 * m['base_token_accuracy']:.1f} % "
            f"-> {100 * m['tuned_token_accuracy']:.1f} %"
        )
    except KeyError:
        return ""


def metric(name: str, value: float) -> tuple[str, str]:
    """A metric of a stage's summary in words, and its value with the unit that its name implies."""
    words = name.removesuffix("_gib").replace("vram", "VRAM").replace("_", " ")
    if any(part in name for part in SHARES):
        return words, f"{100 * value:.1f} %"
    unit = next((unit for part, unit in UNITS.items() if part in name), "")
    return words, f"{value:.4g} {unit}" if unit else f"{value:,.6g}"
