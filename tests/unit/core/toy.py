"""A pipeline of three small stages on a text file, for tests of keys, plan and store."""

from pathlib import Path

from tasks.core.cache.decision import HIT, Selection, StagePlan
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.execute import RunContext, execute
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.plan import Planner
from tasks.core.cache.store import Store
from tasks.core.settings.config import Config, View, check
from tasks.core.stage import (
    Inputs,
    Stage,
    Summary,
    Work,
)

SOURCE = Path("unset")
RUNS: list[str] = []


def sources(config: View, digest_of) -> dict[str, str]:
    return {"words.txt": digest_of(SOURCE)}


def read(config: View, inputs: Inputs, work: Work) -> Summary:
    RUNS.append("read")
    (work.out / "words.txt").write_text(SOURCE.read_text())
    (work.out / "notes.txt").write_text(f"{len(RUNS)} runs so far")  # an extra: in no key
    return Summary("read", rows_out=1)


def sort(config: View, inputs: Inputs, work: Work) -> Summary:
    RUNS.append("sort")
    words = sorted(inputs["read.words"].read_text().split())
    (work.out / "sorted.txt").write_text("\n".join(words))
    return Summary(f"{len(words)} words")


def join(config: View, inputs: Inputs, work: Work) -> Summary:
    RUNS.append("join")
    limit = config.tokenize.window_tokens
    (work.out / "line.txt").write_text(" ".join(inputs["sort.sorted"].read_text().split()[:limit]))
    return Summary("joined")


STAGES = (
    Stage("read", "toy:read", outputs=("words",), sources="toy:sources"),
    Stage("sort", "toy:sort", outputs=("sorted",), inputs=("read.words",)),
    Stage("join", "toy:join", outputs=("line",), inputs=("sort.sorted",), reads=("tokenize",)),
)


class Pipeline:
    """The toy stages over one store, with plan and run."""

    def __init__(self, root: Path) -> None:
        self.digests = DigestCache(root / ".digests.sqlite")
        self.store = Store(root, self.digests)

    def planner(self, config: Config | None = None, selection: Selection | None = None) -> Planner:
        settings = config or check({"hardware": {"device": "cpu"}})
        return Planner(STAGES, settings, self.store, self.digests, selection or Selection())

    def plan(
        self, config: Config | None = None, selection: Selection | None = None
    ) -> list[StagePlan]:
        return self.planner(config, selection).plan()

    def decisions(
        self, config: Config | None = None, selection: Selection | None = None
    ) -> list[str]:
        return [plan.decision for plan in self.plan(config, selection)]

    def run(self, config: Config | None = None, selection: Selection | None = None) -> list[str]:
        """Run what the plan says; names of the stages whose `run` was called."""
        settings = config or check({"hardware": {"device": "cpu"}})
        RUNS.clear()
        planner = self.planner(settings, selection)
        planner.plan()
        for name in planner.selected:
            plan = planner.plan_stage(name)
            planner.add_artifact(self.manifest(plan, settings, planner))
        return list(RUNS)

    def manifest(self, plan: StagePlan, config: Config, planner: Planner) -> Manifest:
        if plan.decision == HIT:
            assert plan.manifest is not None
            return plan.manifest
        return execute(plan, RunContext(config, self.store, planner.artifacts))
