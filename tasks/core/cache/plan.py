"""What would run, why, and what it costs: HIT, RUN or MAYBE for each stage, without running
anything.

Three values because of early cut-off: behind a stage that runs, nobody knows yet whether its output
will differ. Such a stage is MAYBE, unless something of its own (config, code, env) has changed as
well: then it is RUN.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tasks.core.cache import cost_estimate, runs, source_changes
from tasks.core.cache.cache_key import (
    Parts,
    full_parts,
    key_of,
    own_parts,
)
from tasks.core.cache.causes import (
    Cause,
    difference,
    is_opinion,
    nearest,
)
from tasks.core.cache.digest_cache import Memo
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.source_changes import Recorder
from tasks.core.cache.store import KEY_DIGITS, Store
from tasks.core.cache.warm_start import started
from tasks.core.errors import PipelineError
from tasks.core.settings.config import Config
from tasks.core.stage import Stage

HIT, RUN, MAYBE = "HIT", "RUN", "MAYBE"
LAST_RUNS = 20  # an artifact of theirs that is gone was removed by hand or collected


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
        expected_seconds: 0 for a HIT; otherwise by past runs, None if it never ran.
        expected_rows: Rows of the artifact, or that it will have as far as past runs tell.
    """

    stage: Stage
    verdict: str
    causes: tuple[Cause, ...] = ()
    key: str | None = None
    parts: Parts = field(default_factory=dict)
    manifest: Manifest | None = None
    expected_seconds: float | None = None
    expected_rows: float | None = None

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
        self._files = {stage.name: Recorder(memo.digest) for stage in pipeline}
        self._own = {
            stage.name: own_parts(stage, config, memo, self._files[stage.name])
            for stage in pipeline
        }
        self._pipeline = {stage.name: stage for stage in pipeline}
        self._past: dict[str, list[Manifest]] = {}
        self._on_record: set[tuple[str, str]] | None = None
        self.artifacts: dict[str, Manifest] = {}

    def made(self, manifest: Manifest) -> None:
        """Tell that a stage's artifact is there now: the stages behind it rest on it."""
        self.artifacts[manifest.stage] = manifest
        self._past.pop(manifest.stage, None)

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
            return self._behind(stage, own, unknown, before)
        parts = started(stage, full_parts(own, digests), self._store)
        key = key_of(parts)
        found = self._store.find(stage.name, key)
        forced = stage.name in self._force
        if found.manifest and not forced:
            rows = cost_estimate.rows_out(found.manifest)
            return StagePlan(stage, HIT, (), key, parts, found.manifest, 0.0, rows)
        earlier = self._earlier(stage.name)
        close = found.manifest or nearest(parts, earlier)
        if forced:
            causes: tuple[Cause, ...] = (Cause("forced", stage.name),)
        elif found.problem:
            causes = (Cause(*found.problem),)
        else:
            causes = self._told(stage, difference(parts, close), close, before)
            if (stage.name, key) in self._recorded():
                opinions = causes if is_opinion(causes) else ()
                causes = (Cause("missing", f"{stage.name}/{key[:KEY_DIGITS]}"), *opinions)
        cost = self._cost(stage, close, earlier, before)
        return StagePlan(stage, RUN, causes, key, parts, close, *cost)

    def _recorded(self) -> set[tuple[str, str]]:
        """(stage, key) of the artifacts that the last runs rested on, whether or not they are there
        still."""
        if self._on_record is None:
            root = self._store.root
            records = []
            for run in runs.ids(root)[-LAST_RUNS:]:
                with suppress(PipelineError):  # a torn record tells nothing
                    records.append(runs.load(root, run))
            self._on_record = {pair for record in records for pair in record.keys.items()}
        return self._on_record

    def _told(
        self,
        stage: Stage,
        causes: tuple[Cause, ...],
        close: Manifest | None,
        before: Mapping[str, StagePlan],
    ) -> tuple[Cause, ...]:
        """Causes with the files and rows behind a change of data."""
        if close is None or not any(cause.kind == "data" for cause in causes):
            return causes
        sources = {*close.parts.get("sources", {}), *self._own[stage.name]["sources"]}
        before_files = source_changes.files_of(self._store, close)
        causes = source_changes.with_files(
            causes, sources, before_files, self._files[stage.name].files
        )
        upstream = {name.partition(".")[0] for name in stage.inputs}
        made = {name: m for name in upstream if (m := self._artifact(name, before))}
        return tuple(source_changes.with_rows(self._store, causes, made))

    def _cost(
        self,
        stage: Stage,
        close: Manifest | None,
        earlier: list[Manifest],
        before: Mapping[str, StagePlan],
    ) -> tuple[float | None, float | None]:
        """Seconds that a stage will take and rows that it will have, going by past runs."""
        if close is None:
            return None, None
        growth = self._growth(stage, close, before)
        then = cost_estimate.rows_in(close)
        past = cost_estimate.alike(self._own[stage.name]["config"], close, earlier)
        seconds = cost_estimate.seconds_for(then and then * growth, past)
        made = cost_estimate.rows_out(close)
        return seconds, made and made * growth

    def _growth(self, stage: Stage, close: Manifest, before: Mapping[str, StagePlan]) -> float:
        """How many times as many rows the stage reads as an earlier run of it did."""
        for name, digest in close.parts.get("inputs", {}).items():
            upstream, _, output = name.partition(".")
            made = self._artifact(upstream, before)
            if made is not None and made.outputs.get(output) == digest:
                continue  # this input is as it was
            now: float | None = cost_estimate.rows_out(made)
            if made is None and upstream in before:
                now = before[upstream].expected_rows
            past = self._earlier(upstream)
            then = next(
                (cost_estimate.rows_out(m) for m in past if m.outputs.get(output) == digest), 0
            )
            if now and then:
                return now / then
        return 1.0

    def _earlier(self, name: str) -> list[Manifest]:
        """The last artifacts of a stage, read once for all that is asked of them."""
        if name not in self._past:
            self._past[name] = self._store.recent(name)
        return self._past[name]

    def _artifact(self, name: str, before: Mapping[str, StagePlan]) -> Manifest | None:
        """The artifact of an earlier stage that this plan rests on, if it is there."""
        if name in self.artifacts:
            return self.artifacts[name]
        return before[name].manifest if name in before and before[name].verdict == HIT else None

    def _inputs(
        self, stage: Stage, before: Mapping[str, StagePlan]
    ) -> tuple[dict[str, str], list[str]]:
        """Digests of the stage's inputs, and the inputs whose digest is not known yet."""
        digests, unknown = {}, []
        for name in stage.inputs:
            upstream, _, output = name.partition(".")
            manifest = self._artifact(upstream, before)
            if manifest is None:
                unknown.append(upstream)
            else:
                digests[name] = manifest.outputs[output]
        return digests, list(dict.fromkeys(unknown))

    def _behind(
        self, stage: Stage, own: Parts, unknown: list[str], before: Mapping[str, StagePlan]
    ) -> StagePlan:
        """The verdict behind a stage that runs: MAYBE, or RUN if something of its own changed."""
        earlier = self._earlier(stage.name)
        close = nearest(own, earlier)
        causes = difference(own, close)
        if close is not None:
            causes = self._told(stage, causes, close, before)
        verdict = RUN
        if stage.name in self._force:
            causes = (Cause("forced", stage.name),)
        elif not causes:
            verdict, causes = MAYBE, tuple(Cause("data", name) for name in unknown)
        cost = self._cost(stage, close, earlier, before)
        return StagePlan(stage, verdict, causes, None, {}, close, *cost)

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
