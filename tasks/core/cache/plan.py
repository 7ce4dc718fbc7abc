"""Planner: which stages would run, why, and what it costs, without running anything.

The planner reads settings, sources, code and environment once. `finetune plan` prints its plans;
a run plans each stage again when the artifacts before it are there, from the same planner.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from tasks.core.artifacts import runs
from tasks.core.cache import cost_estimate, source_changes
from tasks.core.cache.cache_key import (
    full_parts,
    key_of,
    own_parts,
)
from tasks.core.cache.causes import (
    Cause,
    can_be_accepted,
    difference,
    nearest,
)
from tasks.core.cache.code_digest import Modules
from tasks.core.cache.decision import HIT, MAYBE, Selection, StagePlan, decide
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.source_changes import Recorder
from tasks.core.cache.store import KEY_DIGITS, Found, Store
from tasks.core.cache.warm_start import started
from tasks.core.errors import PipelineError, RecordError
from tasks.core.settings.config import Config
from tasks.core.stage import Stage

LAST_RUNS = 20  # an artifact that they used and that is gone was deleted, not superseded


class Planner:
    """Plans stages; a run adds the artifacts that it produces.

    Only the selected stages and those that they depend on are planned: inspecting data needs no
    base model. The parts of the keys that come from settings, sources, code and environment are
    read once, when the planner is created: an edit during a long run can't change a key that was
    computed before.

    Attributes:
        selected: Names of the selected stages, in order.
        artifacts: Manifests of the artifacts that the run uses so far, by stage.
    """

    def __init__(
        self,
        pipeline: Sequence[Stage],
        config: Config,
        store: Store,
        digests: DigestCache,
        selection: Selection,
    ) -> None:
        pipeline = [stage.with_options(config) for stage in pipeline]
        self.selected = selection.names(pipeline)
        self._force = frozenset(selection.force)
        self._store = store
        self._pipeline = {stage.name: stage for stage in pipeline}
        selected = set(self.selected)
        self._needed = [
            stage
            for stage in pipeline
            if stage.name in selected.union(*map(self._ancestors, self.selected))
        ]
        self._files = {stage.name: Recorder(digests.digest) for stage in self._needed}
        modules: Modules = {}
        self._own = {
            stage.name: own_parts(stage, config, digests, self._files[stage.name], modules)
            for stage in self._needed
        }
        self._past: dict[str, list[Manifest]] = {}
        self._on_record: set[tuple[str, str]] | None = None
        self.artifacts: dict[str, Manifest] = {}

    def add_artifact(self, manifest: Manifest) -> None:
        """Record the artifact of a stage: the stages after it read it."""
        self.artifacts[manifest.stage] = manifest
        self._past.pop(manifest.stage, None)

    def plan(self) -> list[StagePlan]:
        """Plans of the selected stages, in order.

        Raises:
            PipelineError: A stage that was not selected would have to run first.
        """
        plans: dict[str, StagePlan] = {}
        for stage in self._needed:
            plans[stage.name] = self.plan_stage(stage.name, plans)
        for name in self.selected:
            self._check_upstream(self._pipeline[name], plans)
        for name, plan in plans.items():
            if name not in self.selected and plan.decision == HIT and plan.manifest:
                self.add_artifact(plan.manifest)
        return [plans[name] for name in self.selected]

    def plan_stage(self, name: str, before: Mapping[str, StagePlan] | None = None) -> StagePlan:
        """The plan of one stage.

        Args:
            name: Of the stage.
            before: Plans of the stages before it; not needed once their artifacts are there.
        """
        before = before or {}
        stage, own, forced = self._pipeline[name], self._own[name], name in self._force
        digests, unknown = self._inputs(stage, before)
        key, parts, found = None, own, Found(None)
        if not unknown:
            parts = started(stage, full_parts(own, digests), self._store)
            key = key_of(parts)
            found = self._store.find(name, key)
        close = found.manifest or nearest(parts, self._earlier(name))
        changes = () if found.manifest else difference(parts, close)
        decision = decide(key, found.manifest, forced, bool(changes))
        if decision == HIT:
            size = cost_estimate.rows_out(found.manifest)
            return StagePlan(stage, HIT, (), key, parts, found.manifest, False, 0.0, size)
        if forced:
            causes: tuple[Cause, ...] = (Cause("forced", name),)
        elif decision == MAYBE:
            causes = tuple(Cause("data", upstream) for upstream in unknown)
        elif found.problem:
            causes = (Cause(*found.problem),)
        else:
            causes = self._with_details(stage, changes, close, before)
            if (name, key) in self._recorded():
                shown = causes if can_be_accepted(causes) else ()
                causes = (Cause("missing", f"{name}/{(key or '')[:KEY_DIGITS]}"), *shown)
        seconds, rows = self._cost(stage, close, before)
        parts = parts if key else {}
        return StagePlan(stage, decision, causes, key, parts, close, forced, seconds, rows)

    def _recorded(self) -> set[tuple[str, str]]:
        """(stage, key) of the artifacts that the last runs used, deleted ones included."""
        if self._on_record is None:
            root = self._store.root
            records = []
            for run in runs.ids(root)[-LAST_RUNS:]:
                with suppress(RecordError):
                    records.append(runs.load(root, run))
            self._on_record = {pair for record in records for pair in record.keys.items()}
        return self._on_record

    def _with_details(
        self,
        stage: Stage,
        causes: tuple[Cause, ...],
        close: Manifest | None,
        before: Mapping[str, StagePlan],
    ) -> tuple[Cause, ...]:
        """Causes of kind "data" with the files and rows that changed."""
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
        self, stage: Stage, close: Manifest | None, before: Mapping[str, StagePlan]
    ) -> tuple[float | None, float | None]:
        """Estimated seconds and output rows of a stage, from past runs."""
        if close is None:
            return None, None
        growth = self._growth(stage, close, before)
        then = cost_estimate.rows_in(close)
        past = cost_estimate.alike(
            self._own[stage.name]["config"], close, self._earlier(stage.name)
        )
        seconds = cost_estimate.seconds_for(then and then * growth, past)
        made = cost_estimate.rows_out(close)
        return seconds, made and made * growth

    def _growth(self, stage: Stage, close: Manifest, before: Mapping[str, StagePlan]) -> float:
        """Rows that the stage will read, divided by those of the earlier run `close`."""
        for name, digest in close.parts.get("inputs", {}).items():
            upstream, _, output = name.partition(".")
            made = self._artifact(upstream, before)
            if made is not None and made.outputs.get(output) == digest:
                continue  # unchanged
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
        """The last artifacts of a stage, read once."""
        if name not in self._past:
            self._past[name] = self._store.recent(name)
        return self._past[name]

    def _artifact(self, name: str, before: Mapping[str, StagePlan]) -> Manifest | None:
        """The artifact of an earlier stage that this plan uses, if it exists."""
        if name in self.artifacts:
            return self.artifacts[name]
        return before[name].manifest if name in before and before[name].decision == HIT else None

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

    def _check_upstream(self, stage: Stage, plans: Mapping[str, StagePlan]) -> None:
        """Reject a selection that needs an artifact which is missing or out of date."""
        for name in stage.inputs:
            upstream = name.partition(".")[0]
            if self._is_ready(upstream, plans):
                continue
            first = next(n for n in self._ancestors(stage.name) if not self._is_ready(n, plans))
            why = "; ".join(map(str, plans[first].causes[:2])) or plans[first].decision
            raise PipelineError(
                f"stage {stage.name} needs {name}, but stage {first} has to run first ({why})",
                f"Run `finetune run --from {first}` first, or `finetune run` for all stages.",
            )

    def _is_ready(self, name: str, plans: Mapping[str, StagePlan]) -> bool:
        selected = name in self.selected or name in self.artifacts
        return selected or plans[name].decision == HIT

    def _ancestors(self, name: str) -> list[str]:
        """The stages that a stage depends on, in pipeline order."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            new = {n.partition(".")[0] for n in self._pipeline[waiting.pop()].inputs} - found
            found |= new
            waiting += new
        return [name for name in self._pipeline if name in found]
