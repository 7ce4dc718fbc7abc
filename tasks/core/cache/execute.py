"""Runs one stage and publishes its outputs.

The order makes a kill at any moment lose no finished work and leave nothing half-written: lock the
key, look again (another process may have published the artifact meanwhile), import the code and
check that it is still the code of the key, run in a work folder, check that the sources did not
change during the run, write the manifest, rename.
"""

import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tasks.core.cache import cost_estimate, warm_start
from tasks.core.cache import manifest as manifests
from tasks.core.cache.cache_key import (
    Parts,
    key_of,
    moved_since,
)
from tasks.core.cache.decision import StagePlan, made_meanwhile
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.source_changes import Recorder
from tasks.core.cache.store import KEY_DIGITS, LOGS, Store
from tasks.core.errors import PipelineError, StopError
from tasks.core.package_version import version
from tasks.core.progress import say
from tasks.core.rows import row_cache_folders
from tasks.core.settings.config import Config, View
from tasks.core.stage import (
    Run,
    RunBatches,
    Stage,
    Summary,
    Work,
)
from tasks.core.stage_log import logged
from tasks.core.system.gpu_lock import gpu_turn, time_limit
from tasks.core.system.home import IS_CHECKOUT, REPOSITORY
from tasks.core.system.parallel import ordered_map
from tasks.core.system.quiet_hours import quiet_now

LOG = "log.txt"  # of the stage, in its artifact
VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "prefect", "pyarrow")


@dataclass(frozen=True)
class RunContext:
    """What all stages of a run share.

    Attributes:
        config: All settings; a stage sees only what it declares.
        store: Where artifacts are published.
        artifacts: Manifests of the artifacts that the run uses so far, by stage.
        flow_run: Id of the Prefect flow run, for the manifest.
        run_batches: How a data stage runs its batches.
        profile: Name or file of the profile, for reports.
    """

    config: Config
    store: Store
    artifacts: Mapping[str, Manifest]
    flow_run: str = ""
    run_batches: RunBatches = ordered_map
    profile: str = ""


def execute(plan: StagePlan, context: RunContext) -> Manifest:
    """Run a planned stage and return the manifest of its artifact.

    If another process has published the artifact since the plan, it is returned instead.

    Raises:
        PipelineError: A user error, from the stage itself.
        StageError: Any other failure of the stage, with the path of its log.
    """
    stage, key, store = plan.stage, plan.key, context.store
    if key is None:
        raise ValueError(f"stage {stage.name} has no key yet: an input is missing")

    def waiting() -> None:
        say(f"{stage.name}: another run is producing this artifact; waiting for it")

    with store.working(stage.name, key, waiting) as work:
        if published := made_meanwhile(plan, store):
            shutil.rmtree(work.out.parent, ignore_errors=True)
            return published
        manifest = store.finished(work) or _run_stage(plan, key, context, work)
        store.publish(manifest, work)
        return manifest


def _run_stage(plan: StagePlan, key: str, context: RunContext, work: Work) -> Manifest:
    """Run a stage in its work folder; its manifest is the last file that is written there."""
    stage, store = plan.stage, context.store
    # read when PyTorch is imported; threads that spin at a barrier take the CPU from the thread
    # that they wait for as soon as another program runs (20 times slower at a load of 12)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    log = store.root / LOGS / f"{stage.name}-{key[:KEY_DIGITS]}.log"
    view = View(context.config, stage.reads, stage.name)
    with logged(log, stage.name) as note:
        given = _with_means(work, plan, context)
        function = _loaded(stage, plan.parts, store.digests)
        run = partial(function, view, _inputs(plan, context), given)
        summary = _run_when_free(run, stage, context.config, work.out.parent)
        seconds = cost_estimate.spent(work.out.parent)
        note(f"done in {seconds:.1f} s: {summary.line}")
        _check_sources(stage, view, plan.parts.get("sources", {}), work.out, store.digests)
        shutil.copyfile(log, work.out / LOG)
        manifest = _describe(plan, key, summary, work, seconds, context.flow_run)
        manifest.write(work.out)
    log.unlink()
    return manifest


def _loaded(stage: Stage, parts: Parts, digests: DigestCache) -> Run:
    """The stage's `run`, with all its code imported, so that later edits have no effect.

    Raises:
        PipelineError: The code was edited since the key was computed.
    """
    run = stage.load_run()
    for module in parts["code"]:
        with suppress(ImportError):  # packages that are not installed, such as triton
            import_module(module)
    if moved := moved_since(stage, parts, digests):
        raise PipelineError(
            f"stage {stage.name}: {', '.join(moved)} changed since this run began; nothing stored",
            "Run again: finished stages are kept.",
        )
    return run


def _with_means(work: Work, plan: StagePlan, context: RunContext) -> Work:
    """Add how batches run, where values of single rows are cached, and the profile's name.

    The digest covers code and packages; the arguments of a cached function are added by the stage.
    """
    code = key_of({name: plan.parts.get(name) for name in ("stage", "schema", "code", "env")})
    place = context.store.root / row_cache_folders.ROOT / plan.stage.name
    return replace(
        work,
        shards=place,
        code=code,
        run_batches=context.run_batches,
        profile=context.profile,
    )


def _describe(
    plan: StagePlan, key: str, summary: Summary, work: Work, seconds: float, flow_run: str
) -> Manifest:
    """The manifest of the files that a stage has written."""
    stage = plan.stage
    files = manifests.describe_files(work.out)
    outputs = manifests.output_digests(stage.outputs, files)
    if absent := [name for name in stage.outputs if name not in outputs]:
        raise RuntimeError(f"stage {stage.name} declares outputs that it did not write: {absent}")
    return Manifest(
        stage=stage.name,
        key=key,
        parts=plan.parts,
        outputs=outputs,
        files=files,
        summary=_summary_dict(summary),
        seconds=round(seconds, 3),
        made=_circumstances(flow_run),
    )


def _inputs(plan: StagePlan, context: RunContext) -> dict[str, Path]:
    """Paths of what the stage reads, starts from or shows; missing extras are left out."""
    stage, store, made = plan.stage, context.store, context.artifacts
    paths = warm_start.paths(plan.parts, store)
    for name in (*stage.inputs, *stage.shows):
        upstream, _, entry = name.partition(".")
        path = store.entry(made[upstream], entry) if upstream in made else None
        if path is not None:
            paths[name] = path
        elif name in stage.inputs:
            raise ValueError(f"stage {stage.name} needs {name}, which does not exist")
    return paths


def _check_sources(
    stage: Stage, view: View, before: Mapping[str, str], out: Path, cached: DigestCache
) -> None:
    """Reject a result whose sources changed during the run; else list their files in `out`.

    The key describes the sources as they were before the run. If a cached digest was wrong, the
    sources seem to have changed as well: the cached digests are dropped, and the next run is right.
    """
    sources = stage.load_sources()
    if sources is None:
        return
    recorder = Recorder(DigestCache(None).digest)
    now = sources(view, recorder)
    if changed := sorted(n for n in now.keys() | before.keys() if now.get(n) != before.get(n)):
        cached.forget(recorder.paths)
        raise PipelineError(
            f"stage {stage.name}: {', '.join(changed)} changed while being read; nothing stored",
            "Run again when no program writes to it.",
        )
    recorder.write(out)


def _run_when_free(
    run: Callable[[], Summary], stage: Stage, config: Config, work_folder: Path
) -> Summary:
    """Wait for the GPU and run a stage; run it again after a pause for quiet hours.

    The time that it runs, without the time that it waits, is counted in its work folder.
    """
    hardware = config.hardware
    while True:
        turn = gpu_turn(hardware) if stage.gpu else nullcontext()
        with turn, time_limit(stage.name, hardware.stage_minutes, work_folder / "scratch"):
            try:
                with cost_estimate.segment(work_folder):
                    return run()
            except StopError:
                if quiet_now(hardware.quiet_hours) is None:
                    raise


def _summary_dict(summary: Summary) -> dict[str, Any]:
    plain = asdict(summary)
    return {**plain, "counts": dict(summary.counts), "metrics": dict(summary.metrics)}


def _circumstances(flow_run: str) -> dict[str, Any]:
    """Provenance of an artifact."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
        "commit": _commit(),
        "flow_run": flow_run,
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }


@lru_cache(maxsize=1)
def _commit() -> str:
    """The commit of this code, with "+" if files differ from it; "" outside a repository."""
    if not IS_CHECKOUT:  # the repository around site-packages, if any, is another one
        return ""
    command = [
        "git",
        "-C",
        str(REPOSITORY),
        "describe",
        "--always",
        "--dirty=+",
        "--abbrev=12",
        "--exclude=*",
    ]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
