"""Decides whether a stage is a cache hit; `decide` is the only place that does.

Three values because of early cut-off: until a stage has run, it is unknown whether its output will
differ, so a stage that reads that output is MAYBE, unless its own config, code or env has changed
as well: then it is RUN.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.core.cache.cache_key import Parts
from tasks.core.cache.causes import Cause
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
from tasks.core.errors import PipelineError
from tasks.core.stage import Stage

Decision = Literal["HIT", "RUN", "MAYBE"]
HIT, RUN, MAYBE = "HIT", "RUN", "MAYBE"


@dataclass(frozen=True)
class StagePlan:
    """The decision on one stage.

    Attributes:
        decision: `HIT`, `RUN` or `MAYBE`.
        causes: Why the stage runs; empty for a HIT.
        key: None while an input is not known yet.
        manifest: The artifact, for a HIT; otherwise the nearest earlier one, if any.
        forced: Runs even if its artifact exists.
        expected_seconds: 0 for a HIT; otherwise estimated from past runs, None if it never ran.
        expected_rows: Rows of the artifact, or an estimate from past runs.
    """

    stage: Stage
    decision: Decision
    causes: tuple[Cause, ...] = ()
    key: str | None = None
    parts: Parts = field(default_factory=dict)
    manifest: Manifest | None = None
    forced: bool = False
    expected_seconds: float | None = None
    expected_rows: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The form that `finetune plan --json` prints."""
        return {
            "stage": self.stage.name,
            "decision": self.decision,
            "causes": [cause.to_json() for cause in self.causes],
            "key": self.key,
            "expected_seconds": self.expected_seconds,
        }


@dataclass(frozen=True)
class Selection:
    """The stages that the user selects.

    Attributes:
        only: These stages and no others.
        start_from: This stage and all after it.
        until: This stage and all before it.
        leading_to: This stage and those that it depends on; no others are planned.
        force: Stages that run even if their artifact exists.
    """

    only: tuple[str, ...] = ()
    start_from: str | None = None
    force: tuple[str, ...] = ()
    until: str | None = None
    leading_to: str | None = None

    def names(self, pipeline: Sequence[Stage]) -> list[str]:
        """Selected stages in pipeline order.

        Raises:
            PipelineError: A name is no stage.
        """
        known = [stage.name for stage in pipeline]
        for name in (*self.only, *self.force, self.start_from, self.until):
            if name not in (None, *known):
                raise PipelineError(f"no stage is called {name!r}", f"Stages: {', '.join(known)}.")
        if self.leading_to:
            needed = {self.leading_to}
            for stage in reversed(pipeline):
                if stage.name in needed:
                    needed.update(name.partition(".")[0] for name in stage.inputs)
            return [name for name in known if name in needed]
        start = known.index(self.start_from) if self.start_from else 0
        end = known.index(self.until) + 1 if self.until else len(known)
        return [name for name in known[start:end] if not self.only or name in self.only]


def decide(key: str | None, cached: Manifest | None, forced: bool, changed: bool) -> Decision:
    """HIT, RUN or MAYBE.

    Args:
        key: The stage's key; None while an input is not known yet.
        cached: The complete artifact with this key, if there is one.
        forced: The user requested a run.
        changed: Something else than its inputs differs from the nearest artifact.
    """
    if forced:
        return "RUN"
    if key is None:
        return "RUN" if changed else "MAYBE"
    return "HIT" if cached else "RUN"


def made_meanwhile(plan: StagePlan, store: Store) -> Manifest | None:
    """The artifact of a planned run, if another process has published it since the plan."""
    assert plan.key is not None, "only a stage with a key can run"
    cached = store.find(plan.stage.name, plan.key).manifest
    return cached if decide(plan.key, cached, plan.forced, changed=True) == HIT else None
