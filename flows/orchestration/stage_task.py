"""Runs a planned stage as a Prefect task.

The plan decides: Prefect's cache gets the stage's key, and its key storage answers from the plan.
Prefect's own results folder may be deleted, and artifacts from outside Prefect are hits as well.
The form of the answer (`ResultRecordMetadata`) is semi-public; a contract test pins it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.filesystems import WritableFileSystem
from prefect.results import ResultRecordMetadata  # type: ignore[attr-defined]  # semi-public
from prefect.serializers import JSONSerializer
from prefect.states import Failed
from pydantic import PrivateAttr

from tasks.core.cache import manifest as manifests
from tasks.core.cache.decision import HIT, StagePlan
from tasks.core.cache.execute import RunContext, execute
from tasks.core.cache.store import Store
from tasks.core.errors import PipelineError, StopError
from tasks.core.system.interrupts import settle

RESULTS = ".prefect"


class PlannedHits(WritableFileSystem):
    """Key storage of Prefect's cache that answers from one stage's plan and writes nothing."""

    _hit: tuple[str, Path] | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, plan: StagePlan, store: Store) -> "PlannedHits":
        """The key storage for one planned stage."""
        storage = cls()
        if plan.decision == HIT and plan.key is not None:
            folder = store.folder(plan.stage.name, plan.key)
            storage._hit = result_key(plan.stage.name, plan.key), folder / manifests.NAME
        return storage

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]
        """Where Prefect finds the result; raises `FileNotFoundError`, a miss, unless it is a hit.

        Args:
            path: A key from `result_key`.
        """
        if self._hit is None or self._hit[0] != path:
            raise FileNotFoundError(f"the plan has no hit for {path}")
        metadata = ResultRecordMetadata(storage_key=str(self._hit[1]), serializer=JSONSerializer())
        return metadata.dump_bytes()

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        """Does nothing: the stage has published its manifest by then."""


def result_key(stage: str, key: str) -> str:
    """Prefect's cache key of an artifact, and the file name of Prefect's own copy of the result."""
    return f"{stage}-{key}.json"


class StageTask:
    """One planned stage as a Prefect task.

    A user error ends the task as `Failed` with its two lines as the message: if it were raised,
    Prefect would log a traceback that does not help the user.
    """

    def __init__(self, plan: StagePlan, context: RunContext) -> None:
        self._plan, self._context = plan, context
        self._error: PipelineError | None = None

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the stage, or take its artifact from the store; its manifest as a plain dict.

        Args:
            inputs: Results of the stages before it: Prefect draws its graph from these objects.

        Raises:
            PipelineError, StageError: See `tasks.core.cache.execute.execute`.
        """
        try:
            return self.task()(inputs)
        finally:
            if self._error:  # instead of Prefect's error about a failed state
                raise self._error from None

    def task(self) -> Task[..., dict[str, Any]]:
        """The Prefect task; it returns the manifest as a plain dict."""
        return prefect_task(self._plan, self._context.store, self._run)

    def _run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return dataclasses.asdict(execute(self._plan, self._context))
        except PipelineError as error:
            if isinstance(error, StopError):
                settle()  # the line about the checkpoint is the end of this command
            self._error = error
            return Failed(message=str(error))  # type: ignore[return-value]  # a state is one, too


def prefect_task(
    plan: StagePlan, store: Store, run: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Task[..., dict[str, Any]]:
    """A Prefect task whose cache follows the plan.

    Args:
        plan: With a key: all inputs are known.
        store: Holds the artifact of a hit, and Prefect's own copies of results.
        run: Produces the artifact; returns its manifest.
    """
    stage, key = plan.stage, plan.key
    if key is None:
        raise ValueError(f"stage {stage.name} has no key yet: an input is missing")
    policy = CacheKeyFnPolicy(cache_key_fn=lambda context, parameters: result_key(stage.name, key))
    is_hit = plan.decision == HIT
    uses_gpu = stage.gpu and not is_hit  # a tag costs Prefect a second
    return Task(
        run,
        name=stage.name,
        task_run_name=f"{stage.name} · {'hit' if is_hit else 'run'}",
        description=f"{', '.join(stage.inputs) or 'outside'} -> {', '.join(stage.outputs)}",
        tags=["gpu"] if uses_gpu else None,
        cache_policy=policy.configure(key_storage=PlannedHits.of(plan, store)),
        refresh_cache=plan.forced,
        persist_result=True,
        # Prefect reads nothing outside of this folder, and a stage's may be a link to another disk
        result_storage=store.root / (stage.name if is_hit else RESULTS),
        result_serializer="json",
    )
