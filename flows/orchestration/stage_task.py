"""Prefect task of a pipeline stage, with the artifact store as Prefect's result cache.

The cache policy's key is the stage's cache key, and its key storage reads the artifact's manifest,
so that Prefect and the plan cannot disagree about a hit. The manifest is the single source of
truth: a deleted or edited artifact is a miss, an artifact created outside of Prefect is a hit, and
Prefect's own results folder may be deleted at any time. The stored format
(`ResultRecordMetadata`) is semi-public API; a contract test pins it.
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
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.plan import HIT, StagePlan
from tasks.core.cache.store import Store
from tasks.core.errors import PipelineError

RESULTS = ".prefect"


class ManifestStorage(WritableFileSystem):
    """Key storage of the cache policy: reads manifests and writes nothing."""

    _store: Store = PrivateAttr()

    @classmethod
    def over(cls, store: Store) -> "ManifestStorage":
        """A key storage that reads from `store`."""
        storage = cls()
        storage._store = store
        return storage

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> "ManifestStorage":
        return self  # the policy is copied for every call; the store holds a database connection

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]
        """Metadata of a complete artifact; raises `FileNotFoundError`, a cache miss for Prefect.

        Args:
            path: A key from `result_key`.
        """
        stage, key = parse_result_key(path)
        if self._store.find(stage, key).manifest is None:
            raise FileNotFoundError(f"no complete artifact of stage {stage} for key {key}")
        metadata = ResultRecordMetadata(
            storage_key=str(self._store.folder(stage, key) / manifests.NAME),
            serializer=JSONSerializer(),
        )
        return metadata.dump_bytes()

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        """Do nothing: the stage has already published its manifest."""


def result_key(stage: str, key: str) -> str:
    """Prefect's cache key of an artifact, and the path of Prefect's own copy of the result."""
    return f"{RESULTS}/{stage}-{key}.json"


def parse_result_key(path: str) -> tuple[str, str]:
    """Split a `result_key` into (stage, key)."""
    stage, _, key = Path(path).stem.rpartition("-")
    return stage, key


Execute = Callable[[StagePlan], Manifest]


def run_stage(
    plan: StagePlan, store: Store, execute: Execute, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Run one planned stage as a Prefect task and return its manifest as a plain dict.

    Args:
        plan: A decision whose key is known.
        store: Where Prefect looks up the artifact.
        execute: Creates the artifact.
        inputs: Results of the upstream stages, from which Prefect draws the graph of the run.

    Raises:
        PipelineError, StageError: see `tasks.core.cache.execute.execute`.
    """
    refused: list[PipelineError] = []

    def noting(plan: StagePlan) -> Manifest:
        try:
            return execute(plan)
        except PipelineError as error:
            refused.append(error)
            raise

    try:
        return prefect_task(plan, store, noting)(inputs)
    finally:
        if refused:  # the original error; Prefect wraps that of a failed state
            raise refused[0] from None


def prefect_task(plan: StagePlan, store: Store, execute: Execute) -> Task[..., dict[str, Any]]:
    """The Prefect task of one planned stage.

    It returns the manifest as a plain dict and ends as `Cached` for a hit. A user error ends it as
    `Failed` with the problem and the remedy as the message; if it were raised, Prefect would log a
    traceback that is of no use to the user.

    Args:
        plan: A decision whose key is known.
        store: Where Prefect looks up the artifact.
        execute: Creates the artifact.
    """
    stage, key = plan.stage, plan.key
    if key is None:
        raise ValueError(f"stage {stage.name} has no key yet")

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return dataclasses.asdict(execute(plan))
        except PipelineError as error:
            return Failed(message=str(error))  # type: ignore[return-value]  # Prefect accepts a state

    policy = CacheKeyFnPolicy(cache_key_fn=lambda context, parameters: result_key(stage.name, key))
    forced = any(cause.kind == "forced" for cause in plan.causes)
    uses_gpu = stage.gpu and plan.verdict != HIT  # each tag adds about a second to a task run
    return Task(
        run,
        name=stage.name,
        task_run_name=f"{stage.name} · {'hit' if plan.verdict == HIT else 'run'}",
        description=f"{', '.join(stage.inputs) or 'outside'} -> {', '.join(stage.outputs)}",
        tags=["gpu"] if uses_gpu else None,
        cache_policy=policy.configure(key_storage=ManifestStorage.over(store)),
        refresh_cache=forced,
        persist_result=True,
        result_storage=store.root,
        result_serializer="json",
    )
