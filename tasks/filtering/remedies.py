"""What to do if no row is kept: the rules with most rejected rows, and their nearest values."""

from typing import TYPE_CHECKING

from tasks.core.errors import PipelineError
from tasks.filtering.reasons import settings_by_reason
from tasks.filtering.report.funnel import Funnel
from tasks.filtering.rules.licenses import LICENCE
from tasks.filtering.rules.registry import RULES

if TYPE_CHECKING:
    from tasks.core.settings.filter import FilterSettings


def nothing_kept(funnel: Funnel, total: int, settings: "FilterSettings") -> PipelineError:
    """The error that names the rules with most rejected rows, and their nearest values."""
    if not total:
        return PipelineError("the stage filter received 0 rows", "Add rows to `ingest.sources`.")
    fields = settings_by_reason(settings)
    units = {rule.name: f" {rule.unit}" for rule in RULES if rule.unit}
    rejected, remedies, other = [], [], list[str]()
    for rule, count in list(funnel.counts.items())[:5]:
        value, threshold = funnel.nearest(rule)
        values = f"nearest value {value:.4g}, threshold {threshold:.4g}{units.get(rule, '')}"
        if rule == LICENCE.name:
            licences = funnel.licences()
            named = ", ".join(f"{name} {number:,}" for name, number in list(licences.items())[:5])
            values = f"of rows with license {named}"
            known = [name for name in licences if name != "unknown"][:5]
            if "unknown" in licences:
                other.append("state the license of a source in its field `licence`")
            if known:
                other.append(f"set filter.more_licences to [{', '.join(known)}]")
        else:
            remedies.append(f"filter.{fields[rule]}")
        rejected.append(f"{rule} {count:,} ({values})")
    loosen = [f"loosen {', '.join(dict.fromkeys(remedies))}"] if remedies else []
    ways = [*other, *loosen]
    ways[0] = ways[0][0].upper() + ways[0][1:]
    return PipelineError(
        f"all {total:,} rows are filtered out, by {', '.join(rejected)}",
        f"{', '.join(ways)}, or use other sources.",
    )
