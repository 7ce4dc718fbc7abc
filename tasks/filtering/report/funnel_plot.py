"""Plot of the funnel: an SVG file with the numbers as text."""

from collections.abc import Mapping
from html import escape
from typing import Any

WIDTH, LINE, LABEL, BAR = 860, 26, 250, 430
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.n{fill:#666}"
    ".all{fill:#9aa4b2}.kept{fill:#2f9e6e}.out{fill:#d9733c}.only{fill:#a84a1d}"
    "@media(prefers-color-scheme:dark){svg{background:#16181d}text{fill:#e6e6e6}.n{fill:#9aa4b2}}"
)


def funnel_svg(funnel: Mapping[str, Any]) -> str:
    """A bar for the rows read, for those kept, and for each rule that rejected some.

    Rules are sorted by rejected rows; the dark part of a bar is rows that no other rule rejects.

    Args:
        funnel: Content of funnel.json.
    """
    total = max(1, funnel["rows"])
    reasons = sorted((r for r in funnel["reasons"] if r["rows"]), key=lambda r: -r["rows"])
    lines = [
        _line(0, "rows read", funnel["rows"], total, "all"),
        _line(1, "rows kept", funnel["kept"], total, "kept"),
    ]
    for place, reason in enumerate(reasons, 2):
        lines.append(_line(place, reason["rule"], reason["rows"], total, "out"))
        lines.append(_bar(place, reason["only_this_rule"], total, "only"))
    height = (len(reasons) + 3) * LINE
    title = f"{funnel['kept']:,} of {funnel['rows']:,} rows kept"
    legend = "A row can fail several rules; the dark part fails this one alone."
    lines.append(f'<text class="n" x="10" y="{height - 9}">{legend}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{title}"><title>{title}</title><style>{STYLE}</style>{"".join(lines)}</svg>\n'
    )


def _line(place: int, name: str, rows: int, total: int, kind: str) -> str:
    y = place * LINE + 18
    label = f"{rows:,} ({100 * rows / total:.1f} %)"
    return (
        f'<text x="10" y="{y}">{escape(name)}</text>{_bar(place, rows, total, kind)}'
        f'<text class="n" x="{LABEL + BAR + 10}" y="{y}">{label}</text>'
    )


def _bar(place: int, rows: int, total: int, kind: str) -> str:
    width = round(BAR * rows / total, 2)
    return f'<rect class="{kind}" x="{LABEL}" y="{place * LINE + 5}" width="{width}" height="17"/>'
