"""Prefect page of a run: plan, filter funnel, loss, metrics, verdict and report as artifacts.

Created from the files of the stages' artifacts only, so that the page of a cached stage is the same
as that of a stage that ran.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

MAX_PICTURE_BYTES = 1_000_000  # a picture is stored inside the Prefect artifact


def publish(stage: str, folder: Path) -> None:
    """Publish the results of one stage; most stages have none.

    Args:
        stage: Name of the stage.
        folder: Its artifact.
    """
    if stage == "filter" and (funnel := _read(folder / "funnel.json")):
        create_table_artifact(
            funnel_rows(funnel), key="funnel", description="Rows rejected, by rule"
        )
        _publish_picture(
            folder / "picture.svg", "funnel-picture", "Rows kept, and rejected by rule"
        )
    if stage == "train":
        _publish_picture(folder / "loss.png", "loss", "Loss over the steps")
    if stage == "evaluate":
        _publish_evaluation(folder)


def publish_plan(markdown: str) -> None:
    """Publish the plan, and at the end of the run what ran."""
    create_markdown_artifact(markdown, key="plan", description="What runs, and why")


def _publish_picture(picture: Path, key: str, description: str) -> None:
    """Publish a PNG or SVG file, if it exists and is not too large."""
    if not picture.is_file() or picture.stat().st_size > MAX_PICTURE_BYTES:
        return
    content = base64.b64encode(picture.read_bytes()).decode("ascii")
    kind = {".svg": "svg+xml"}.get(picture.suffix, "png")
    # as Markdown: an image artifact also prints its URL, which contains the whole picture here
    create_markdown_artifact(
        f"![{description}](data:image/{kind};base64,{content})\n", key=key, description=description
    )


def _publish_evaluation(folder: Path) -> None:
    if gate := _read(folder / "gate.json"):
        create_markdown_artifact(verdict_markdown(gate), key="verdict", description="The verdict")
        if rows := metric_rows(gate):
            create_table_artifact(rows, key="metrics", description="Base and tuned")
    if (text := folder / "report.md").is_file():
        create_markdown_artifact(
            text.read_text(encoding="utf-8"), key="report", description="The evaluation"
        )
    if (page := folder / "report.html").is_file():
        create_link_artifact(
            page.as_uri(), str(page), key="report-page", description="The report as one page"
        )


def funnel_rows(funnel: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The filter's counts as a table: kept first, then each rule that rejected a row, then those
    that rejected most of a source."""
    from tasks.filtering.report.funnel import heavy_line

    rows = [{"what": "rows", "rows": funnel["rows"]}, {"what": "kept", "rows": funnel["kept"]}]
    reasons = [r for r in funnel.get("reasons", ()) if r["rows"]]
    reasons.sort(key=lambda reason: -reason["rows"])
    rows += [{"what": f"rejected: {r['rule']}", "rows": r["rows"]} for r in reasons]
    return rows + [{"what": heavy_line(h), "rows": h["rows"]} for h in funnel.get("heavy", ())]


def metric_rows(gate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparisons that decide the verdict, as a table."""
    return [
        {
            "measured": f"{c['name']}, {c['on']}",
            "base": c["shown"]["base"],
            "tuned": c["shown"]["tuned"],
            "difference": c["shown"]["difference"],
            "95 % interval": c["shown"]["interval"],
            "outcome": c["outcome"],
        }
        for c in gate.get("comparisons", ())
    ]


def verdict_markdown(gate: Mapping[str, Any]) -> str:
    """The verdict and its reasons."""
    reasons = "\n".join(f"- {reason}" for reason in gate.get("reasons", ()))
    return f"# {str(gate['verdict']).capitalize()}\n\n{reasons}\n"


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; {} if the file is missing or invalid."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
