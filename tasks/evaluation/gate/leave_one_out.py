"""Leave-one-out: whether a single unit of the split (a project, a file ...) decides a verdict.

For each row set, the units that move a compared value most, in either direction, are left out in
turn. If the verdict changes without one of them, it depends on that unit alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tasks.evaluation.gate.cluster_inference import cluster_sums, without_each
from tasks.evaluation.metrics.protocol import RowMetric
from tasks.evaluation.metrics.registry import ROW_METRICS
from tasks.evaluation.results import Evaluation, RowSet


@dataclass(frozen=True)
class Influence:
    """The units whose absence moves a difference furthest.

    Attributes:
        on: Name of the row set.
        metric: The compared metric.
        unit: What they are: "project", "file" ...
        lowest: The difference at its lowest, and the unit left out for it.
        highest: The same at its highest.
        names: Of units that are not named by themselves.
    """

    on: str
    metric: RowMetric
    unit: str
    lowest: tuple[float, str]
    highest: tuple[float, str]
    names: Mapping[str, str]

    def sentence(self) -> str:
        """Both ends of the range, with the units."""
        scale = self.metric.scale
        ends = [
            f"{scale.difference(value)} (without {self.names.get(left_out, left_out)})"
            for value, left_out in (self.lowest, self.highest)
        ]
        return (
            f"{self.on}: with any one {self.unit} left out, the difference in {self.metric.name} "
            f"is between {ends[0]} and {ends[1]} {scale.unit}."
        )


def influences(evaluation: Evaluation) -> list[Influence]:
    """For each row set of at least three units with several rows, and each compared metric."""
    found = []
    for rows in evaluation.row_sets:
        names = {row.cluster for row in rows.rows if row.tokens}
        if 3 <= len(names) < len(rows.rows):
            metrics = [metric for metric in ROW_METRICS if metric.terms]
            found += [_influence(metric, rows, evaluation) for metric in metrics]
    return found


def warnings(
    evaluation: Evaluation, found: list[Influence], verdict: str, judge: Callable[[Evaluation], str]
) -> tuple[str, ...]:
    """A sentence for each unit without which the verdict is another.

    Args:
        evaluation: What was measured.
        found: Its influences.
        verdict: Of the whole evaluation.
        judge: The verdict of an evaluation with a unit fewer.
    """
    said = []
    sets = {rows.name: rows for rows in evaluation.row_sets}
    candidates = [(i.on, end[1]) for i in found for end in (i.lowest, i.highest)]
    for on, left_out in dict.fromkeys(candidates):
        rest = tuple(row for row in sets[on].rows if row.cluster != left_out)
        others = tuple(replace(s, rows=rest) if s.name == on else s for s in sets.values())
        other = judge(replace(evaluation, row_sets=others))
        if other != verdict:
            total = sum(row.tokens for row in sets[on].rows)
            share = 1 - sum(row.tokens for row in rest) / total
            name = evaluation.unit_names.get(left_out, left_out)
            said.append(
                f"One {evaluation.unit} decides this verdict: without {name} ({100 * share:.0f} % "
                f"of the tokens of {on}) it is {other}."
            )
    return tuple(said)


def _influence(metric: RowMetric, rows: RowSet, evaluation: Evaluation) -> Influence:
    assert metric.terms is not None
    terms = [metric.terms(row) for row in rows.rows]
    sums, names = cluster_sums(
        [row.cluster for row in rows.rows],
        [tuned - base for base, tuned in terms],
        [row.tokens for row in rows.rows],
    )
    without = without_each(sums[:, 0], sums[:, 1])
    low, high = int(without.argmin()), int(without.argmax())
    return Influence(
        rows.name,
        metric,
        evaluation.unit,
        (float(without[low]), str(names[low])),
        (float(without[high]), str(names[high])),
        evaluation.unit_names,
    )
