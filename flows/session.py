"""A session: settings, store and plan of one command or run, with or without Prefect.

`open_session` imports neither Prefect nor torch. `finetune run` plans once: it shows the plan and
passes the same session to the flow that it calls in this process.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from flows import profiles
from flows.plan_notes.training_cost import with_training_cost
from tasks.core.cache.decision import HIT, Selection, StagePlan
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.plan import Planner
from tasks.core.cache.store import Store
from tasks.core.errors import PipelineError
from tasks.core.settings import config as configs
from tasks.core.settings.config import Config
from tasks.core.system.home import home
from tasks.ingestion.sources.digests import few_files
from tasks.pipeline import PIPELINE

MIN_ROWS = 3  # one each to train on, to validate and to test


@dataclass
class Session:
    """Settings, store and plan of a command or run.

    Attributes:
        plans: Of the selected stages when the session was opened, in pipeline order.
        tokenized: The tokenized data, or the last one if the plan creates it anew.
    """

    config: Config
    store: Store
    planner: Planner
    plans: list[StagePlan]
    tokenized: Manifest | None = None


@dataclass(frozen=True)
class Request:
    """A request: the options of `plan` and `run`, the parameters of the flow.

    Attributes:
        profile: Name or file of a profile.
        overrides: "section.field=value" each.
        selection: Stages to consider, and stages to run even if nothing changed.
    """

    profile: str
    overrides: tuple[str, ...] = ()
    selection: Selection = field(default_factory=Selection)

    def leading_to(self, stage: str) -> "Request":
        """The same settings for one stage and those that it depends on: what only other stages
        need, such as a pin of the base, may be missing."""
        return replace(self, selection=Selection(leading_to=stage))


_planned: ContextVar[tuple[Request, Session] | None] = ContextVar("planned", default=None)


@contextmanager
def passed_on(request: Request, session: Session) -> Iterator[None]:
    """Let the flow that is called inside use this session; see `planned_session`."""
    token = _planned.set((request, session))
    try:
        yield
    finally:
        _planned.reset(token)


def planned_session(request: Request) -> Session | None:
    """The session in which the caller of the flow has planned this request, if any."""
    planned = _planned.get()
    return planned[1] if planned and planned[0] == request else None


@contextmanager
def open_session(request: Request, to_write: bool = False) -> Iterator[Session]:
    """Load the settings and plan all stages.

    Args:
        request: Profile, overrides and selection.
        to_write: Remove leftovers from the store first, and keep `gc` out while this is open.

    Raises:
        PipelineError: Invalid settings, missing sources, too little data, or a selection that
            cannot run.
    """
    config = configs.load(profiles.locate(request.profile), request.overrides)
    root = home() / "artifacts"
    with DigestCache(root / ".digests.sqlite") as digests:
        store = Store(root, digests)
        with store.in_use() if to_write else nullcontext():
            if to_write:
                store.sweep()
            planner = Planner(PIPELINE, config, store, digests, request.selection)
            plans = planner.plan()
            digests.save()
            _check_enough(config, plans)
            near = next((plan.manifest for plan in plans if plan.stage.name == "tokenize"), None)
            tokenized = planner.artifacts.get("tokenize") or near
            plans = with_training_cost(config, store, plans, tokenized)
            yield Session(config, store, planner, plans, tokenized)


def _check_enough(config: Config, plans: list[StagePlan]) -> None:
    """Report too few files to be split, or that the filter has kept too few rows."""
    by_name = {plan.stage.name: plan for plan in plans}
    kept, prompt = by_name.get("filter"), by_name.get("prompt")
    if prompt is None or prompt.decision == HIT:
        return
    if config.prompt.split == "file" and (few := few_files(config.ingest.sources)) is not None:
        files = "file" if few == 1 else "files"
        raise PipelineError(
            f"too little data: {few} {files} of code in all of `ingest.sources`; split by file, "
            f"train, validation and test need {MIN_ROWS} or more",
            "Set prompt.split to auto, which takes a smaller unit where it has to, or add files; "
            "those of tests count with `include_tests: true` of the source.",
        )
    if not (kept and kept.manifest) or kept.decision != HIT:
        return
    rows = kept.manifest.summary.get("rows_out")
    if isinstance(rows, int) and rows < MIN_ROWS:
        raise PipelineError(
            f"too little data: the filter keeps {rows} of {kept.manifest.summary.get('rows_in')} "
            f"rows; train, validation and test need {MIN_ROWS} or more",
            "Add rows to `ingest.sources`, or loosen the rules that `finetune show filter` lists.",
        )
