"""The page of `finetune diff --page`: several runs side by side, in one HTML file."""

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from flows.sweep.page import learning_curves, template
from flows.sweep.side_by_side import differences, same
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import KEY_DIGITS


def render(
    records: Sequence[RunRecord],
    made: Sequence[Mapping[str, Manifest]],
    artifacts: Path,
    folder: Path,
) -> str:
    """The page.

    Args:
        records: The runs.
        made: Manifests of the artifacts of each run that still exist, by stage.
        artifacts: The artifacts folder.
        folder: Of the page, to which links are relative.
    """

    def place(stage: str, run: Mapping[str, Manifest]) -> Path | None:
        return artifacts / stage / run[stage].key[:KEY_DIGITS] if stage in run else None

    runs = [
        {
            "id": record.id,
            "profile": Path(record.profile).stem,
            "overrides": record.overrides,
            "report": _link(place("evaluate", run), folder),
        }
        for record, run in zip(records, made, strict=True)
    ]
    trained = [
        (f"run {number}", path)
        for number, run in enumerate(made, 1)
        if (path := place("train", run)) is not None
    ]
    rows = groupby(differences(records, made), key=lambda found: found.stage)
    return template("side_by_side.html").render(
        runs=runs,
        same=same(records),
        stages=[(stage, list(found)) for stage, found in rows],
        curves=learning_curves(trained),
    )


def _link(evaluation: Path | None, folder: Path) -> str:
    """Relative link to the report of an evaluation; "" if there is none."""
    report = evaluation / "report.html" if evaluation else None
    return os.path.relpath(report, folder) if report and report.is_file() else ""
