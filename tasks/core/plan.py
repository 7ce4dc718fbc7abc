"""What would run, why, and what it costs: HIT, RUN or MAYBE for each stage, without running
anything.

Three values because of early cut-off: behind a stage that runs, nobody knows yet whether its output
will differ. Such a stage is MAYBE, unless something of its own (config, code, env) has changed as
well: then it is RUN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.core.causes import Cause, difference, nearest
from tasks.core.config import Config
from tasks.core.continuing import started
from tasks.core.errors import PipelineError
from tasks.core.keys import Parts, full_parts, key_of, own_parts
from tasks.core.manifest import Manifest
from tasks.core.memo import Memo
from tasks.core.stage import Stage
from tasks.core.store import Store

HIT, RUN, MAYBE = "HIT", "RUN", "MAYBE"


@dataclass(frozen=True)
class Selection:
    """Which stages a person asks for.

    Attributes:
        only: These stages and no others.
        start_from: This stage and all after it.
        force: Stages that run even if their artifact is there.
    """

    only: tuple[str, ...] = ()
    start_from: str | None = None
    force: tuple[str, ...] = ()

    def names(self, pipeline: Sequence[Stage]) -> list[str]:
        """Selected stages in pipeline order.

        Raises:
            PipelineError: A name is no stage.
        """
        known = [stage.name for stage in pipeline]
        for name in (*self.only, *self.force, *([self.start_from] if self.start_from else [])):
            if name not in known:
                raise PipelineError(f"no stage is called {name!r}", f"Stages: {', '.join(known)}.")
        start = known.index(self.start_from) if self.start_from else 0
        return [
            name
            for i, name in enumerate(known)
            if i >= start and (not self.only or name in self.only)
        ]


@dataclass(frozen=True)
class StagePlan:
    """The verdict on one stage.

    Attributes:
        key: None while it rests on an output that is not made yet.
        manifest: The artifact, for a HIT; otherwise the nearest earlier one, if any.
    """

    stage: Stage
    verdict: str
    causes: tuple[Cause, ...] = ()
    key: str | None = None
    parts: Parts = field(default_factory=dict)
    manifest: Manifest | None = None

    @property
    def expected_seconds(self) -> float | None:
        """What the stage took the last time it ran; 0 for a HIT, None if it never ran."""
        if self.verdict == HIT:
            return 0.0
        return self.manifest.seconds if self.manifest else None

    def to_json(self) -> dict[str, Any]:
        """The form that `finetune plan --json` prints."""
        return {
            "stage": self.stage.name,
            "verdict": self.verdict,
            "causes": [cause.to_json() for cause in self.causes],
            "key": self.key,
            "expected_seconds": self.expected_seconds,
        }


class Planner:
    """Decides on one stage after another; a run feeds it the artifacts that it makes on the way.

    The parts of the keys that come from settings, sources, code and environment are read once, when
    the planner is made, so that an edit during a long run can't slip under a key computed before
    it.

    Attributes:
        selected: Names of the selected stages, in order.
        artifacts: Manifests that the run rests on so far, by stage.
    """

    def __init__(
        self,
        pipeline: Sequence[Stage],
        config: Config,
        store: Store,
        memo: Memo,
        selection: Selection,
    ) -> None:
        self.selected = selection.names(pipeline)
        self._force = frozenset(selection.force)
        self._store = store
        self._own = {stage.name: own_parts(stage, config, memo) for stage in pipeline}
        self._pipeline = {stage.name: stage for stage in pipeline}
        self.artifacts: dict[str, Manifest] = {}

    def made(self, manifest: Manifest) -> None:
        """Tell that a stage's artifact is there now: the stages behind it rest on it."""
        self.artifacts[manifest.stage] = manifest

    def plan(self) -> list[StagePlan]:
        """Verdicts for the selected stages, in order.

        Raises:
            PipelineError: A stage that was not selected would have to run first.
        """
        plans: dict[str, StagePlan] = {}
        for name, stage in self._pipeline.items():
            plans[name] = self._decide(stage, plans)
        for name in self.selected:
            self._check_upstream(self._pipeline[name], plans)
        for name, plan in plans.items():
            if name not in self.selected and plan.verdict == HIT and plan.manifest:
                self.made(plan.manifest)
        return [plans[name] for name in self.selected]

    def decide(self, name: str) -> StagePlan:
        """The verdict on one stage, given the artifacts made so far."""
        return self._decide(self._pipeline[name], {})

    def _decide(self, stage: Stage, before: Mapping[str, StagePlan]) -> StagePlan:
        """The verdict on one stage, given the verdicts before it and the artifacts made so far."""
        own = self._own[stage.name]
        digests, unknown = self._inputs(stage, before)
        if unknown:
            return self._behind(stage, own, unknown)
        parts = started(stage, full_parts(own, digests), self._store)
        key = key_of(parts)
        found = self._store.find(stage.name, key)
        earlier = self._store.recent(stage.name)
        close = nearest(parts, earlier)
        if stage.name in self._force:
            return StagePlan(
                stage, RUN, (Cause("forced", stage.name),), key, parts, found.manifest or close
            )
        if found.manifest:
            return StagePlan(stage, HIT, (), key, parts, found.manifest)
        if found.problem:
            return StagePlan(stage, RUN, (Cause(*found.problem),), key, parts, close)
        return StagePlan(stage, RUN, difference(parts, close), key, parts, close)

    def _inputs(
        self, stage: Stage, before: Mapping[str, StagePlan]
    ) -> tuple[dict[str, str], list[str]]:
        """Digests of the stage's inputs, and the inputs whose digest is not known yet."""
        digests, unknown = {}, []
        for name in stage.inputs:
            upstream, _, output = name.partition(".")
            manifest = self.artifacts.get(upstream)
            if manifest is None and upstream in before and before[upstream].verdict == HIT:
                manifest = before[upstream].manifest
            if manifest is None:
                unknown.append(upstream)
            else:
                digests[name] = manifest.outputs[output]
        return digests, list(dict.fromkeys(unknown))

    def _behind(self, stage: Stage, own: Parts, unknown: list[str]) -> StagePlan:
        """The verdict behind a stage that runs: MAYBE, or RUN if something of its own changed."""
        earlier = self._store.recent(stage.name)
        if stage.name in self._force:
            return StagePlan(
                stage,
                RUN,
                (Cause("forced", stage.name),),
                None,
                {},
                earlier[0] if earlier else None,
            )
        if not earlier:
            return StagePlan(stage, RUN, (Cause("never ran", stage.name),))
        close = nearest(own, earlier)
        causes = difference(own, close)
        if causes:
            return StagePlan(stage, RUN, causes, None, {}, close)
        return StagePlan(
            stage, MAYBE, tuple(Cause("data", name) for name in unknown), None, {}, close
        )

    def _check_upstream(self, stage: Stage, plans: Mapping[str, StagePlan]) -> None:
        """Refuse a selection that would have to use an artifact which is absent or out of date."""
        for name in stage.inputs:
            upstream = name.partition(".")[0]
            plan = plans[upstream]
            if (
                upstream not in self.selected
                and plan.verdict != HIT
                and upstream not in self.artifacts
            ):
                why = "; ".join(map(str, plan.causes)) or plan.verdict
                raise PipelineError(
                    f"stage {stage.name} needs {name}, which would have to be made first ({why})",
                    f"Run `finetune run --from {upstream}`, or without --only and --from.",
                )
