"""Final states of deployment runs: superseded, nothing to do, failed by a user error.

After a downtime, Prefect starts every missed run of a schedule, one after the other. Each of them
skips its work if a newer run of the same schedule is waiting.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from tasks.core.errors import PipelineError, StopError

SUPERSEDED = "Superseded"
ENGINE_LOGGERS = ("prefect.flow_runs", "prefect.engine")
NOTHING_TO_DO = "Nothing to do: every stage's artifact is up to date."


def superseded() -> State[dict[str, str]] | None:
    """Final state of this run if a newer scheduled run of its deployment waits; None: it continues.

    Only scheduled runs are skipped, and only in favor of scheduled runs: a run that the user starts
    always runs.
    """
    run = _this_run()
    if run is None or not run.auto_scheduled or run.deployment_id is None:
        return None
    newer = _waiting(run)
    if newer is None:
        return None
    message = f"superseded by run {newer.name}, scheduled for {newer.expected_start_time:%F %H:%M}"
    return Completed(name=SUPERSEDED, message=message, data={})


def ending(folders: Mapping[str, str], nothing: bool) -> dict[str, str] | State[dict[str, str]]:
    """Return value of the flow: the folders; for a deployment run with nothing to do, a state that
    says so."""
    run = _this_run()
    if nothing and run is not None and run.deployment_id is not None:
        return Completed(message=NOTHING_TO_DO, data=dict(folders))
    return dict(folders)


def refused(error: PipelineError) -> State[dict[str, str]]:
    """Final state of a deployment run with a user error: problem and remedy, no traceback.

    A training that stopped at its checkpoint because the run was cancelled ends as cancelled.

    Raises:
        PipelineError: The same error, if the run belongs to no deployment.
    """
    run = _this_run()
    if run is None or run.deployment_id is None:
        raise error
    get_run_logger().error(str(error))
    for name in ENGINE_LOGGERS:  # Prefect logs two tracebacks for a failed state
        logging.getLogger(name).addFilter(lambda record: not record.exc_info)
    if isinstance(error, StopError):
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run.id).state
        if state is not None and state.is_cancelling():
            return Cancelled(message=str(error))
    return Failed(message=str(error))


def _this_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context else None


def _waiting(run: FlowRun) -> FlowRun | None:
    """The newest run of the same schedule that is due and has not started."""
    wanted = FlowRunFilter.model_validate(
        {
            "deployment_id": {"any_": [run.deployment_id]},
            "state": {"type": {"any_": ["SCHEDULED", "PENDING"]}},
            "expected_start_time": {
                "after_": run.expected_start_time,
                "before_": datetime.now(UTC),
            },
        }
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=20
        )
    return next((other for other in found if other.auto_scheduled and other.id != run.id), None)
