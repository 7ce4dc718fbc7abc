"""One run of the pipeline: settings, store and planner together, with or without Prefect around it.

`open_session` is what the plan and the flow share; it imports neither Prefect nor torch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from flows import profiles
from tasks.core.cache.digest_cache import Memo
from tasks.core.cache.plan import Planner, Selection, StagePlan
from tasks.core.cache.store import Store
from tasks.core.settings import config as configs
from tasks.core.settings.config import Config
from tasks.core.system.home import home
from tasks.pipeline import PIPELINE


@dataclass
class Session:
    """What a run works with.

    Attributes:
        plans: The verdicts when the session was opened, in pipeline order.
    """

    config: Config
    store: Store
    planner: Planner
    plans: list[StagePlan]


@dataclass(frozen=True)
class Request:
    """What a person asks for: the options of `plan` and `run`, the parameters of the flow.

    Attributes:
        profile: Name or file of a profile.
        overrides: "section.field=value" each.
        selection: Which stages, and which of them by force.
    """

    profile: str
    overrides: Sequence[str] = ()
    selection: Selection = field(default_factory=Selection)


@contextmanager
def open_session(request: Request, to_write: bool = False) -> Iterator[Session]:
    """Read the settings and plan.

    Args:
        request: What is asked for.
        to_write: The store is tidied up first, and nothing in it is collected meanwhile.

    Raises:
        PipelineError: Wrong settings, sources that are not there, a selection that cannot be run.
    """
    config = configs.load(profiles.locate(request.profile), request.overrides)
    root = home() / "artifacts"
    with Memo(root / ".digests.sqlite") as memo:
        store = Store(root, memo)
        with store.in_use() if to_write else nullcontext():
            if to_write:
                store.sweep()
            planner = Planner(PIPELINE, config, store, memo, request.selection)
            plans = planner.plan()
            memo.save()
            yield Session(config, store, planner, plans)
