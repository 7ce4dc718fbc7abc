"""Session of a command or flow run: settings, artifact store and planner.

Shared by `finetune plan` and the flow, so that both plan in the same way; it imports neither
Prefect nor torch.
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
    """Settings, store and planner of one request.

    Attributes:
        plans: The decisions at the time the session was opened, in pipeline order.
    """

    config: Config
    store: Store
    planner: Planner
    plans: list[StagePlan]


@dataclass(frozen=True)
class Request:
    """Profile, overrides and stage selection: options of the commands, parameters of the flow.

    Attributes:
        profile: Name or file of a profile.
        overrides: "section.field=value" each.
        selection: Stages to consider, and stages to run even if nothing changed.
    """

    profile: str
    overrides: Sequence[str] = ()
    selection: Selection = field(default_factory=Selection)


@contextmanager
def open_session(request: Request, to_write: bool = False) -> Iterator[Session]:
    """Load the settings and plan all stages.

    Args:
        request: Profile, overrides and selection.
        to_write: Remove leftovers from the store first, and keep `gc` out while this is open.

    Raises:
        PipelineError: Invalid settings, missing sources, or a selection that cannot run.
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
