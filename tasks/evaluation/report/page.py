"""What a person sees: one HTML page that needs nothing else, the same in Markdown, and one line.

Texts written by a model are data: the page's template escapes everything, and the page forbids
scripts and any request; in Markdown they stand in fences that they can't close.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.core.rows.data_card import read_licences
from tasks.core.system.escape_text import spelled
from tasks.core.text.special_tokens import readable
from tasks.evaluation.gate import (
    Comparison,
    Gate,
    shown,
    shown_difference,
)
from tasks.evaluation.metrics import summary
from tasks.evaluation.report import lineage, plots
from tasks.evaluation.report.lineage import Origin
from tasks.evaluation.results import (
    INFILLING,
    PASS,
    Attempt,
    Evaluation,
    ProblemResult,
)

TEMPLATES = Path(__file__).parent / "templates"
MAX_SHOWN = 8  # flips of each kind, and samples, in the page
MAX_SAME = 4  # problems on which both models did the same
MAX_TEXT = 4_000  # characters of one text
FEW, FEW_TEXT = 3, 1_000  # the same in Markdown: answers of each kind, and characters of a text
LABELS = {  # of training.json, where the name alone reads badly
    "tokens_per_s": "tokens/s",
    "seconds": "time",
    "peak_vram_gib": "peak GPU memory, GiB",
    "peak_memory_gib": "peak memory, GiB",
    "trainable_share": "trainable",
    "trained": "tokens with loss",
    "load_vram_gib": "GPU memory of the base, GiB",
    "step": "steps",
}


@dataclass(frozen=True)
class Shown:
    """What other stages left to look at; empty where it was not made.

    Attributes:
        curve: Records of metrics.jsonl.
        training: training.json.
        funnel: funnel.json.
        licences: (Licence, rows) of the training rows.
        lineage: The artifacts below.
    """

    curve: Sequence[Mapping[str, Any]] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    funnel: Mapping[str, Any] = field(default_factory=dict)
    licences: Sequence[tuple[str, int]] = ()
    lineage: Sequence[Origin] = ()


def read_shown(paths: Mapping[str, Path]) -> Shown:
    """Read the extras that are there; a missing or torn one leaves its place empty.

    Args:
        paths: "stage.entry" -> where it lies.
    """
    metrics, training, funnel = (
        paths.get(name) for name in ("train.metrics", "train.training", "filter.funnel")
    )
    lines = _text(metrics).splitlines()
    records = [record for line in lines if isinstance(record := _parsed(line), dict)]
    facts, counts = _parsed(_text(training)), _parsed(_text(funnel))
    return Shown(
        curve=records,
        training=facts if isinstance(facts, dict) else {},
        funnel=counts if isinstance(counts, dict) else {},
        licences=read_licences(paths.get("filter.kept"), paths.get("tokenize.train")),
        lineage=lineage.trace(paths.values()),
    )


def html(evaluation: Evaluation, gate: Gate, shown_by_others: Shown, *, title: str = "") -> str:
    """The page, self-contained."""
    return _render("report.html", _view(evaluation, gate, shown_by_others, title))


def markdown(evaluation: Evaluation, gate: Gate, shown_by_others: Shown, *, title: str = "") -> str:
    """The page as Markdown, with fewer and shorter texts."""
    return _render("report.md", _view(evaluation, gate, shown_by_others, title))


def headline(evaluation: Evaluation, gate: Gate) -> str:
    """One line for a terminal, such as "improved: held-out loss 1.432 → 1.051"."""
    probes = {rows.name for rows in evaluation.row_sets if rows.probe}
    parts = [
        f"{c.on} {c.name} {shown(c, c.base)} → {shown(c, c.tuned)}"
        for c in gate.comparisons
        if c.on not in probes
    ]
    return f"{gate.verdict}: {', '.join(parts) if parts else 'nothing was measured'}"


def _render(template: str, view: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=template.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = _markdown_text
    environment.filters["fenced"] = fenced
    environment.filters["bar"] = plots.text_bar
    environment.filters["upper_first"] = _upper_first
    return environment.get_template(template).render(view)


def _upper_first(text: str) -> str:
    """A phrase as the start of a cell; pass@1 is written small."""
    return text if text.startswith("pass@") else text[:1].upper() + text[1:]


def _markdown_text(text: str) -> str:
    """Text that stays one cell of a table and is no markup."""
    for character in "\\`*_|<>[]":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())


def fenced(text: str) -> str:
    """Text as a block of code that it can't end: its fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{_cut(text, FEW_TEXT)}\n{fence}"


def _view(evaluation: Evaluation, gate: Gate, others: Shown, title: str) -> dict[str, Any]:
    """Everything that the templates show, as plain values in the order of the page."""
    numbers = summary.metrics(evaluation)
    spans = plots.spans(gate.comparisons)
    limit = evaluation.settings.get("max_new_tokens")
    compared = _compared(evaluation.problems, limit)
    flips = {kind: compared[kind] for kind in ("won", "lost")}
    samples = [
        {"label": "held-out", "kind": "", "id": s.row_id, "prompt": visible(readable(s.prompt))}
        | {
            "reference": visible(s.reference),
            "base": _answer(s.base, limit),
            "tuned": _answer(s.tuned, limit),
        }
        for s in evaluation.samples[:MAX_SHOWN]
    ]
    kinds = [*flips.values(), samples, compared["same"]]
    return {
        "title": title,
        "verdict": gate.verdict,
        "reasons": gate.reasons,
        "comparisons": [
            _comparison(c) | {"span": span} for c, span in zip(gate.comparisons, spans, strict=True)
        ],
        "notes": list(dict.fromkeys(c.note for c in gate.comparisons if c.note)),
        "also": _also_measured(numbers),
        "curve": plots.loss_curve(others.curve),
        "held_out": _held_out(gate),
        "training": _facts(others.training),
        "funnel": _funnel(others.funnel),
        "splits": evaluation.splits,
        "licences": _licences(others.licences),
        "lineage": [
            {**asdict(origin), "time": duration(origin.seconds)} for origin in others.lineage
        ],
        "flips": {kind: len(found) for kind, found in flips.items()},
        "answers": [a for found in flips.values() for a in found[:MAX_SHOWN]]
        + samples
        + compared["same"][:MAX_SAME],
        "few": [answer for found in kinds for answer in found[:FEW]],
        "left": sum(max(0, len(found) - MAX_SHOWN) for found in flips.values())
        + max(0, len(compared["same"]) - MAX_SAME)
        + max(0, len(evaluation.samples) - MAX_SHOWN),
        "costs": [
            {"what": c.what, "seconds": duration(c.seconds), "tokens": c.tokens}
            | {"rate": c.tokens / c.seconds if c.tokens and c.seconds > 0 else None}
            | {"memory": c.peak_memory_gib}
            for c in evaluation.costs
        ],
        "sandbox": evaluation.sandbox,
        "not_measured": [*evaluation.not_measured, *_failed_by_the_sandbox(numbers)],
        "settings": sorted((k, _scalar(v)) for k, v in evaluation.settings.items()),
    }


def _failed_by_the_sandbox(numbers: Mapping[str, Any]) -> list[str]:
    """A sentence for each suite with problems that count for neither model."""
    return [
        f"{found['infra']} of {found['problems']} problems of {on} are left out: the sandbox "
        "failed on them."
        for on, found in numbers["problems"].items()
        if found["infra"]
    ]


def _held_out(gate: Gate) -> tuple[str, str] | None:
    """Loss of base and tuned model on the test split, for the words below the curve."""
    found = [c for c in gate.comparisons if (c.name, c.on) == ("loss", "held-out")]
    return (shown(found[0], found[0].base), shown(found[0], found[0].tuned)) if found else None


def _licences(counts: Sequence[tuple[str, int]]) -> list[tuple[str, int, str]]:
    """(Licence, rows, share) of the training rows."""
    total = sum(rows for _, rows in counts) or 1
    return [(name or "unknown", rows, f"{100 * rows / total:.1f}") for name, rows in counts]


def _comparison(c: Comparison) -> dict[str, Any]:
    margin = None
    if c.margin is not None:
        margin = shown_difference(c, c.margin if c.lower_is_better else -c.margin)
    bounds = None
    if c.low is not None and c.high is not None:
        bounds = (shown_difference(c, c.low), shown_difference(c, c.high))
    return {
        "name": c.name,
        "on": c.on,
        "base": shown(c, c.base),
        "tuned": shown(c, c.tuned),
        "difference": shown_difference(c, c.difference),
        "unit": "nats" if c.name == "loss" else "points",
        "interval": bounds,
        "p": "< 0.001" if c.p_adjusted < 0.001 else f"{c.p_adjusted:.3f}",
        "units": f"{c.units:,} {c.unit if c.units != 1 else c.unit.removesuffix('s')}",
        "margin": margin,
        "outcome": "breached" if c.breached else c.outcome,
    }


def _also_measured(numbers: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(what, on, base, tuned) of the values that carry no test."""
    rows = []
    for on, found in numbers["rows"].items():
        for name, digits in (("perplexity", 2), ("bits_per_byte", 3)):
            if name in found["base"]:
                pair = [f"{found[who][name]:,.{digits}f}" for who in ("base", "tuned")]
                rows.append((name.replace("_", " "), on, *pair))
    for on, found in [*numbers["problems"].items(), ("held-out samples", numbers["samples"])]:
        more = [name for name in found["base"] if name.startswith("pass@") and name != "pass@1"]
        # what is broken off by rule can't end by itself
        more += [] if on.endswith(("(completion)", f"({INFILLING})")) else ["stops"]
        for name in more:
            pair = [found[who].get(name) for who in ("base", "tuned")]
            if None not in pair:
                label = "ends by itself" if name == "stops" else name
                rows.append((label, on, *(f"{100 * value:.1f} %" for value in pair)))
    return rows


def _compared(
    problems: Sequence[ProblemResult], limit: int | None
) -> dict[str, list[dict[str, Any]]]:
    """Problems that one model solves and the other does not, what was won first; then the others,
    of the suites in turn, so that each is seen."""
    found: dict[str, list[dict[str, Any]]] = {"won": [], "lost": [], "same": []}
    labels = {"won": "fail → pass", "lost": "pass → fail"}
    seen: Counter[tuple[str, str]] = Counter()
    others = []
    for p in summary.judged(problems):
        before, after = (attempts[0].verdict == PASS for attempts in (p.base, p.tuned))
        kind = "same" if before == after else "won" if after else "lost"
        answer = {
            "label": labels.get(kind, "both pass" if after else "both fail"),
            "kind": kind,
            "id": f"{p.problem_id} · {p.style}",
            "prompt": visible(readable(p.prompt)),
            "reference": visible(p.reference),
            "base": _answer(p.base[0], limit),
            "tuned": _answer(p.tuned[0], limit),
        }
        if kind == "same":
            others.append((seen[p.suite, p.style], answer))
            seen[p.suite, p.style] += 1
        else:
            found[kind].append(answer)
    found["same"] = [answer for _, answer in sorted(others, key=lambda pair: pair[0])]
    return found


def _answer(attempt: Attempt, limit: int | None) -> dict[str, Any]:
    # a raw completion is broken off behind its function, an infilling behind its line
    cut = "broken off" if limit and attempt.tokens < limit else "cut at the limit"
    return {
        "text": visible(attempt.text) or "(nothing)",
        "verdict": attempt.verdict,
        "detail": visible(attempt.detail)[:200],
        "tokens": attempt.tokens,
        "cut": "" if attempt.stopped else cut,
    }


def visible(text: str) -> str:
    """The text, cut at `MAX_TEXT`, with characters that would hide or reorder it spelled out."""
    return spelled(_cut(text, MAX_TEXT))


def _cut(text: str, length: int) -> str:
    """The beginning of a text, and how much more there is."""
    left = len(text) - length
    return f"{text[:length]}\n… {left:,} more characters" if left > 0 else text


def _funnel(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """Rows in, rows kept and the rules by how much they took."""
    rows_in, kept = raw.get("rows"), raw.get("kept")
    if not isinstance(rows_in, int) or not isinstance(kept, int) or not rows_in:
        return None
    reasons = [r for r in raw.get("reasons", ()) if isinstance(r, dict) and r.get("rows")]
    return {
        "rows_in": rows_in,
        "kept": kept,
        "kept_percent": round(100 * kept / rows_in, 1),
        "reasons": [
            {"rule": str(r["rule"]).replace("_", " "), "rows": r["rows"]}
            | {"percent": round(100 * r["rows"] / rows_in, 2)}
            for r in sorted(reasons, key=lambda r: (-r["rows"], str(r["rule"])))
        ],
    }


def _facts(raw: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Numbers and words of training.json with readable names; nested values stay out."""
    facts = []
    for name, value in raw.items():
        if name.endswith("vram_gib") and not value:
            continue  # there was no GPU
        if isinstance(value, (int, float)) and name == "seconds":
            facts.append((LABELS[name], duration(value)))
        elif isinstance(value, float) and name.endswith("_share"):
            facts.append((LABELS.get(name, name.replace("_", " ")), f"{100 * value:.3f} %"))
        elif isinstance(value, (str, bool, int, float)):
            facts.append((LABELS.get(name, name.replace("_", " ")), _scalar(value)))
    return facts


def _scalar(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _text(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
