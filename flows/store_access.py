"""Access to the artifacts for commands: the folder, an open store, a stage's current artifact."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import messages, profiles
from flows.session import Session
from tasks.core.cache.decision import HIT, StagePlan
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
from tasks.core.errors import PipelineError
from tasks.core.system.home import home


def root() -> Path:
    """The artifacts folder."""
    return home() / "artifacts"


@contextmanager
def open_store() -> Iterator[Store]:
    """The artifact store, for commands that need no settings."""
    with DigestCache(root() / ".digests.sqlite") as digests:
        yield Store(root(), digests)


def plan_of(session: Session, stage: str) -> StagePlan:
    """The plan of one stage."""
    return next(plan for plan in session.plans if plan.stage.name == stage)


def current_artifact(plan: StagePlan) -> Manifest:
    """The artifact of a stage for the settings of the plan.

    Raises:
        PipelineError: The stage has to run first.
    """
    if plan.decision != HIT or plan.manifest is None:
        raise PipelineError(
            f"stage {plan.stage.name} has no artifact for these settings "
            f"({messages.short_reason(plan)})",
            f"Run `finetune run` first, with the same --profile and --set.{_of_last_run(plan)}",
        )
    return plan.manifest


def _of_last_run(plan: StagePlan) -> str:
    """The options for the artifact of the last run, if it used other settings."""
    record = profiles.last_run()
    if record is None or plan.stage.name not in record.keys:
        return ""
    given = profiles.options(record.profile, record.overrides)
    return f" For the last run, add:{given}" if given else ""
