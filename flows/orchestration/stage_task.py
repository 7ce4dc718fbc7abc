"""Stage -> Prefect task. The only module below tasks/ that imports Prefect.

Prefect asks our store whether a stage is a hit: the cache policy's key is the stage's key, and its
key storage answers from the manifest. The manifest is the only truth: an artifact that was deleted
or edited is a miss, one that was made outside Prefect is a hit, and Prefect's own results folder
may be wiped. The form of the answer (`ResultRecordMetadata`) is semi-public; a contract test pins
it.
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
    """Key storage of the cache: reads manifests, writes nothing."""

    _store: Store = PrivateAttr()

    @classmethod
    def over(cls, store: Store) -> "ManifestStorage":
        """A key storage that answers from `store`."""
        storage = cls()
        storage._store = store
        return storage

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> "ManifestStorage":
        return self  # the policy is copied for every call; the store holds a database connection

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]
        """Metadata of a whole artifact; raises `FileNotFoundError`, which Prefect takes as a miss.

        Args:
            path: A key from `result_key`.
        """
        stage, key = parse_result_key(path)
        if self._store.find(stage, key).manifest is None:
            raise FileNotFoundError(f"no whole artifact of stage {stage} under {key}")
        metadata = ResultRecordMetadata(
            storage_key=str(self._store.folder(stage, key) / manifests.NAME),
            serializer=JSONSerializer(),
        )
        return metadata.dump_bytes()

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        """Nothing: the stage has published its manifest by then."""


def result_key(stage: str, key: str) -> str:
    """Prefect's name for an artifact; also where Prefect writes its own copy of the result."""
    return f"{RESULTS}/{stage}-{key}.json"


def parse_result_key(path: str) -> tuple[str, str]:
    """(stage, key) of a `result_key`."""
    stage, _, key = Path(path).stem.rpartition("-")
    return stage, key


Execute = Callable[[StagePlan], Manifest]


def run_stage(
    plan: StagePlan, store: Store, execute: Execute, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Run one planned stage as a Prefect task; its manifest as a plain dict.

    Args:
        plan: A verdict whose key is known.
        store: Where Prefect looks for the artifact.
        execute: Makes the artifact.
        inputs: Results of the stages before it, for the graph on Prefect's page.

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
        if refused:  # not what Prefect makes of a failed state
            raise refused[0] from None


def prefect_task(plan: StagePlan, store: Store, execute: Execute) -> Task[..., dict[str, Any]]:
    """The Prefect task of one planned stage.

    It returns the manifest as a plain dict and is shown as `Cached` for a hit. What the user can
    mend ends it as `Failed` with its two lines: raised, Prefect would log a traceback that says
    nothing to them.

    Args:
        plan: A verdict whose key is known.
        store: Where Prefect looks for the artifact.
        execute: Makes the artifact.
    """
    stage, key = plan.stage, plan.key
    if key is None:
        raise ValueError(f"stage {stage.name} has no key yet")

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return dataclasses.asdict(execute(plan))
        except PipelineError as error:
            return Failed(message=str(error))  # type: ignore[return-value]  # a state is one, too

    policy = CacheKeyFnPolicy(cache_key_fn=lambda context, parameters: result_key(stage.name, key))
    forced = any(cause.kind == "forced" for cause in plan.causes)
    uses_gpu = stage.gpu and plan.verdict != HIT  # a tag costs Prefect a second
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
