"""`finetune show filter`: the funnel as text, and the full history of one row."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.core.system.escape_text import escape_controls

BAR = 24  # characters of a full bar
NO_ROWS = "-"
SPLITS = ("train", "validation", "test")
TEXTS = ("instruction", "input", "output")
ORIGIN = ("source", "project", "path", "line", "version", "licence", "licence_evidence", "kind")
MAX_HITS = 10


def funnel_lines(funnel: Mapping[str, Any]) -> list[str]:
    """The funnel as lines of text.

    Args:
        funnel: Content of funnel.json.
    """
    total, kept = funnel["rows"], funnel["kept"]
    lines = [
        f"{'rows in':<28}{total:>10,}",
        f"{'rows kept':<28}{kept:>10,}  {_share(kept, total)}  {_bar(kept, total)}",
    ]
    reasons = sorted(funnel["reasons"], key=lambda r: -r["rows"])
    lines += _rejected([reason for reason in reasons if reason["rows"]], funnel)
    silent = [reason["rule"] for reason in reasons if not reason["rows"]]
    if silent:
        lines += ["", f"rejected no row, or off: {', '.join(silent)}"]
    lines += _sources(funnel) + _base_loss(funnel)
    return lines + _redacted(funnel) + _contamination(funnel) + _examples(reasons)


def _rejected(reasons: Sequence[Mapping[str, Any]], funnel: Mapping[str, Any]) -> list[str]:
    """The rules that rejected rows, and their settings."""
    if not reasons:
        return []
    head = f"{'rejected by':<25}{'rows':>8} {'share':>8} {'alone':>8}"
    lines = ["", f"{head} {'kept -20 %':>10} {'kept +20 %':>10}"]
    for reason in reasons:
        moved = funnel.get("what_if", {}).get(reason["rule"], {})
        what_if = [_kept(moved.get(name), funnel["kept"]) for name in ("-20%", "+20%")]
        lines.append(
            f"  {reason['rule']:<23}{reason['rows']:>8,} {_share(reason['rows'], funnel['rows'])} "
            f"{reason['only_this_rule']:>8,} {what_if[0]:>10} {what_if[1]:>10}"
        )
    lines.append("alone: rejected by no other rule; kept: with a threshold 20 % lower or higher")
    settings = [r for r in reasons if r.get("setting")]
    if settings:
        lines += ["", "settings of these rules"]
    return lines + [f"  {r['rule']:<23}{r['setting']}" for r in settings]


def _sources(funnel: Mapping[str, Any]) -> list[str]:
    lines = ["", f"{'source':<28}{'rows':>10}{'kept':>10}"]
    for name, counts in funnel["sources"].items():
        share = _share(counts["kept"], counts["rows"])
        lines.append(f"  {name[:26]:<26}{counts['rows']:>10,}{counts['kept']:>10,}  {share}")
    return lines


def _base_loss(funnel: Mapping[str, Any]) -> list[str]:
    """Quantiles of the base's losses, and the rows that it predicts worst."""
    found = funnel.get("base_loss")
    if not found:
        return []
    quantiles = ", ".join(f"{share} % up to {found[f'p{share}']:.2f}" for share in (10, 50, 90, 99))
    lines = ["", f"loss of the base in nats per token ({found['rows']:,} rows): {quantiles}"]
    for row in found["worst"]:
        place = escape_controls(f"{row['source']} {row['path']}:{row['line']}")
        lines.append(f"  {row['loss']:>8.2f}  {row['row_id']}  {place}")
    return lines


def _redacted(funnel: Mapping[str, Any]) -> list[str]:
    found = funnel.get("redacted", {})
    if not found:
        return ["", "redacted: nothing"]
    lines = ["", f"{'redacted':<28}{'spans':>10}{'rows':>10}"]
    return lines + [f"  {kind:<26}{c['spans']:>10,}{c['rows']:>10,}" for kind, c in found.items()]


def _contamination(funnel: Mapping[str, Any]) -> list[str]:
    lines = [""]
    for benchmark in funnel.get("benchmarks", ()):
        searched = benchmark["missing"] or f"searched for {benchmark['tasks']:,} problems"
        lines.append(f"benchmark {benchmark['name']}: {searched}")
    found = funnel.get("contamination", {"rows": 0, "hits": []})
    if found["rows"]:
        lines.append(f"{found['rows']:,} rows contain {found['tasks']:,} of the problems:")
    for hit in found["hits"][:MAX_HITS]:
        lines.append(
            f"  {hit['row_id']}  {hit['task_id']:<16}{hit['layer']:<10} {hit['evidence'][:80]}"
        )
    if len(found["hits"]) > MAX_HITS:
        lines.append(f"  and {len(found['hits']) - MAX_HITS:,} more in funnel.json")
    duplicates = funnel.get("duplicates")
    if duplicates and duplicates["clusters"]:
        lines.append(
            f"{duplicates['clusters']:,} clusters of duplicates, the largest of "
            f"{duplicates['largest']:,} rows; {duplicates['verified_pairs']:,} pairs compared"
        )
    return lines


def _examples(reasons: list[dict[str, Any]]) -> list[str]:
    lines = ["", "examples (full history of a row: finetune show filter --row ID)"]
    for reason in (r for r in reasons if r["rows"]):
        lines += [f"  {reason['rule']:<26}{row_id}" for row_id in reason["examples"]]
    return lines if len(lines) > 2 else []


def _share(part: int, total: int) -> str:
    return f"{100 * (part / total if total else 0):>6.2f} %"


def _bar(part: int, total: int) -> str:
    filled = round(BAR * part / total) if total else 0
    return "#" * filled + "." * (BAR - filled)


def _kept(moved: Mapping[str, Any] | None, kept: int) -> str:
    return NO_ROWS if moved is None else f"{moved['kept'] - kept:+,}"


def history_lines(
    record: Mapping[str, Any], measured: Mapping[str, Any] | None, use: Sequence[str]
) -> list[str]:
    """Everything that is known about a row: origin, rules with values, duplicates, split.

    Args:
        record: The row of kept or rejected.
        measured: Its row of measurements; None if they were deleted.
        use: How later stages used it, from `downstream`.
    """
    reasons = record.get("reasons") or []
    state = f"rejected for {len(reasons)} reason(s)" if reasons else "kept"
    lines = [f"row {record['row_id']}: {state}", ""]
    lines += [
        f"  {name:<18}{record[name]}" for name in ORIGIN if record.get(name) not in ("", None)
    ]
    for reason in reasons:
        rule = f"  rejected by: {reason['rule']:<28}value {reason['value']:g}, "
        lines += [f"{rule}threshold {reason['threshold']:g}  {reason['note']}".rstrip()]
    lines += _duplicates(record, measured) + _spans(record)
    lines += [f"  {'split':<18}{line}" for line in use]
    if measured:
        lines += ["", "measured"]
        names = [n for n in measured if n not in ("row_id", "near_twin")]
        lines += [f"  {name:<28}{measured[name]:g}" for name in names if measured[name] is not None]
    for name in TEXTS:
        if record.get(name):
            lines += ["", f"[{name}]", record[name]]
    return [escape_controls(line) for line in lines]


def _duplicates(record: Mapping[str, Any], measured: Mapping[str, Any] | None) -> list[str]:
    lines = []
    if measured and measured.get("near_twin"):
        similarity = measured["near_duplicate"]
        lines.append(f"  {'most similar':<18}{measured['near_twin']} (Jaccard {similarity:.3f})")
    cluster = record.get("cluster")
    if cluster and (cluster != record["row_id"] or lines):
        lines.append(f"  {'cluster':<18}{cluster}")
    return lines


def _spans(record: Mapping[str, Any]) -> list[str]:
    spans = json.loads(record.get("redactions") or "[]")
    return [f"  {'redacted':<18}{kind} in {name}, characters {a}-{b}" for name, kind, a, b in spans]


def downstream(row_id: str, prompt: Path | None, tokenize: Path | None) -> list[str]:
    """How the stages after filter used a kept row.

    Args:
        row_id: The row.
        prompt: Artifact of the stage prompt; None: it does not exist yet.
        tokenize: Artifact of the stage tokenize; None: it does not exist yet.
    """
    if prompt is None:
        return ["unknown: the stage prompt has not run yet"]
    split = next((n for n in SPLITS if has_row(prompt / f"{n}.parquet", row_id)), None)
    if split is None:
        return _left_out(row_id, prompt)
    return [split, *(_dropped(row_id, tokenize / "dropped.parquet") if tokenize else [])]


def _left_out(row_id: str, prompt: Path) -> list[str]:
    """The reason why a kept row is in no split."""
    for entry in _entries(prompt / "problems.jsonl"):
        if entry["task_id"].endswith(f"/{row_id}"):
            return ["none: held out as an evaluation problem"]
    for hit in _entries(prompt / "contaminated.jsonl"):
        if hit["row_id"] == row_id:
            return [f"none: contains {hit['task_id']} ({hit['layer']}: {hit['evidence']})"]
    return ["none: over a cap, or similar to rows of another split or to a problem"]


def _entries(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _dropped(row_id: str, ledger: Path) -> list[str]:
    """The reasons why a row of a split has no tokens."""
    import pyarrow.parquet as pq

    if not ledger.is_file():
        return []
    found = pq.read_table(ledger, filters=[("row_id", "=", row_id)]).to_pylist()
    return [
        f"dropped by tokenize: {r['reason']}, value {r['value']:g}, threshold {r['threshold']:g}"
        for r in found
    ]


def has_row(table: Path, row_id: str) -> bool:
    """Whether a Parquet file contains a row with this id."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(table) as file:
        return any(
            pc.any(pc.equal(batch.column(0), row_id)).as_py()
            for batch in file.iter_batches(columns=["row_id"])
        )
