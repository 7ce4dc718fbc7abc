"""Runs the stages of a flow run: decides, runs the stage as a Prefect task, reports the result."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run

from flows import messages
from flows.orchestration import run_page, superseded, task_runners
from flows.orchestration.progress_sinks import watched
from flows.orchestration.stage_task import StageTask
from flows.session import Request, Session, open_session, planned_session
from tasks.core import progress
from tasks.core.artifacts import runs
from tasks.core.artifacts.champion import history, taken_back
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache.decision import HIT, StagePlan
from tasks.core.cache.execute import RunContext
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import KEY_DIGITS
from tasks.core.errors import PipelineError
from tasks.core.stage_log import hide_notices
from tasks.core.system.disk_space import is_full, no_space
from tasks.core.system.home import home
from tasks.core.system.interrupts import stop_signals_raise

PROMOTES = "promotes"  # tag of a deployment whose runs may promote a model


class Runner:
    """Runs the stages of one session, one call per stage, in pipeline order."""

    def __init__(self, session: Session, request: Request) -> None:
        self._session = session
        self._request = request
        self._record = RunRecord(
            runs.new_id(session.store.root),
            request.profile,
            tuple(request.overrides),
            flow_run=str(flow_run.id or ""),
            ended=False,
        )
        for name, manifest in session.planner.artifacts.items():
            self._note(name, manifest)
        self._results: dict[str, dict[str, Any]] = {}
        self._ran: list[tuple[StagePlan, Manifest]] = []
        # in a terminal, the command has printed the plan
        self._told = {} if deployment.id else {plan.stage.name: plan for plan in session.plans}
        self._nothing = all(plan.decision == HIT for plan in session.plans)

    def __call__(self, name: str) -> None:
        """Run a stage, or take its artifact from the store; skip one that is not selected.

        Raises:
            PipelineError, StageError: See `tasks.core.cache.execute.execute`.
        """
        session = self._session
        if name not in session.planner.selected:
            return
        plan = session.planner.plan_stage(name)
        if plan.decision != HIT:
            progress.say(messages.starting(plan, self._told.get(name)))
            self._keep(self._record.with_work(name, plan.key or ""))
        context = RunContext(
            session.config,
            session.store,
            session.planner.artifacts,
            self._record.flow_run,
            task_runners.run_batches(session.config.hardware),
            self._request.profile,
        )
        upstream = {n.partition(".")[0] for n in plan.stage.inputs}
        inputs = {n: self._results[n] for n in sorted(upstream) if n in self._results}
        result = self._results[name] = StageTask(plan, context)(inputs)
        manifest = Manifest.from_plain(result)
        session.planner.add_artifact(manifest)
        self._note(name, manifest)
        self._ran.append((plan, manifest))
        progress.say(messages.finished(plan, manifest, self._record.flow_run))
        run_page.publish(name, session.store.folder(name, manifest.key))

    def folders(self) -> dict[str, str]:
        """Folder of each artifact that this run created or reused."""
        made = self._session.planner.artifacts
        return {name: str(self._session.store.folder(name, m.key)) for name, m in made.items()}

    def promote_improvement(self) -> None:
        """Promote the merged model if it passes the gate and the deployment has the tag `PROMOTES`.

        A model that the user rolled back is not promoted again by a schedule.
        """
        made = self._session.planner.artifacts
        if PROMOTES not in flow_run.tags or "merge" not in made:
            return
        from flows.delivery.promotion import promote_model

        key = made["merge"].key
        try:
            if back := taken_back(history(self._session.store.root), key):
                why = f' ("{back.why}")' if back.why else ""
                when = messages.moment(back.when)
                progress.say(f"not promoted: the model was rolled back on {when}{why}")
                return
            promote_model(self._request, force=False, because="")
            progress.say(f"promoted: merge/{key[:KEY_DIGITS]} is the champion")
        except PipelineError as refused:
            progress.say(f"not promoted: {refused.problem}")

    def ending(self) -> dict[str, str] | State[dict[str, str]]:
        """Return value of the flow: the folders; see `flows.orchestration.superseded.ending`.

        The plan on the run's page is replaced by the results: downstream of a stage that ran, the
        reasons are known only at the end.
        """
        if not self._nothing:
            run_page.publish_plan(messages.ran_markdown(self._ran, self._record.flow_run))
            self._track_results()
        self._keep(replace(self._record, ended=True))
        return superseded.ending(self.folders(), self._nothing)

    def _track_results(self) -> None:
        """Add the verdict to the experiment trackers of the training, if it has any."""
        session = self._session
        if session.config.train.track_with:
            from flows.delivery.tracked_results import track_results

            track_results(session, session.planner.artifacts)

    def _note(self, name: str, manifest: Manifest) -> None:
        self._keep(self._record.with_key(name, manifest.key))

    def _keep(self, record: RunRecord) -> None:
        """Update the record of this run on disk."""
        self._record = record
        record.write(self._session.store.root)


@contextmanager
def opened(request: Request) -> Iterator[Runner]:
    """A `Runner` for a request; the plan with its reasons is published on the run's page."""
    hide_notices()
    planned = planned_session(request)
    session_of = nullcontext(planned) if planned else open_session(request, to_write=True)
    # Prefect handles SIGTERM for runs of deployments, which it cancels; not for runs in a terminal
    stopping = nullcontext() if deployment.id else stop_signals_raise()
    with watched(), _report_full_disk(), session_of as session, stopping:
        run_page.publish_plan(messages.plan_markdown(session.plans))
        if deployment.id:  # in a terminal, the command has printed the plan already
            progress.say(messages.total(session.plans))
        yield Runner(session, request)


@contextmanager
def _report_full_disk() -> Iterator[None]:
    """Report a full disk between two stages as the same error as within a stage."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise no_space("the run", home() / "artifacts", error) from error
