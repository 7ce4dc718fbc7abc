"""What the flow does for each stage: decide, run as a Prefect task (or show it as cached), tell."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from flows import words
from flows.session import Request, Session, open_session
from flows.watching import watched
from tasks.bridge import prefect_task
from tasks.core import progress, runs
from tasks.core.execution import execute
from tasks.core.manifest import Manifest
from tasks.core.plan import HIT, StagePlan
from tasks.core.runs import RunRecord


class Runner:
    """Runs the stages of one session, one call a stage, in pipeline order."""

    def __init__(self, session: Session, request: Request) -> None:
        self._session = session
        self._record = RunRecord(
            runs.new_id(), request.profile, tuple(request.overrides), {}, str(flow_run.id or "")
        )
        for name, manifest in session.planner.artifacts.items():
            self._note(name, manifest)
        self._results: dict[str, dict[str, Any]] = {}

    def __call__(self, name: str) -> None:
        """Run a stage, or take its artifact from the store; one that is not selected is passed
        over.

        Raises:
            PipelineError, StageError: see `tasks.core.execution.execute`.
        """
        session = self._session
        if name not in session.planner.selected:
            return
        plan = session.planner.decide(name)
        if plan.verdict != HIT:
            progress.say(words.starting(plan))
        task = prefect_task(plan, session.store, self._execute)
        upstream = {n.partition(".")[0] for n in plan.stage.inputs}
        result = task({n: self._results[n] for n in sorted(upstream) if n in self._results})
        self._results[name] = result
        manifest = Manifest.from_plain(result)
        session.planner.made(manifest)
        self._note(name, manifest)
        progress.say(words.finished(plan, manifest))
        if name == "evaluate":
            self._publish_report(manifest)

    def folders(self) -> dict[str, str]:
        """Folder of each artifact that this run made or found."""
        made = self._session.planner.artifacts
        return {name: str(self._session.store.folder(name, m.key)) for name, m in made.items()}

    def _note(self, name: str, manifest: Manifest) -> None:
        """Keep the record of this run up to date on the disk."""
        self._record = self._record.with_key(name, manifest.key)
        self._record.write(self._session.store.root)

    def _execute(self, plan: StagePlan) -> Manifest:
        session = self._session
        return execute(
            plan,
            session.config,
            session.store,
            session.planner.artifacts,
            self._record.flow_run,
        )

    def _publish_report(self, manifest: Manifest) -> None:
        """Show the evaluation's report on the run's page."""
        path: Path | None = self._session.store.entry(manifest, "report")
        if path is not None and (text := path.with_suffix(".md")).is_file():
            create_markdown_artifact(
                text.read_text(encoding="utf-8"), key="report", description="Evaluation"
            )


@contextmanager
def opened(request: Request) -> Iterator[Runner]:
    """A `Runner` for a request; the plan with its reasons is published on the run's page."""
    with watched(), open_session(request) as session, session.store.in_use():
        session.store.sweep()
        plan = words.plan_markdown(session.plans)
        create_markdown_artifact(plan, key="plan", description="What runs, and why")
        yield Runner(session, request)
