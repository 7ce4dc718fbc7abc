"""Prefect flow around the pipeline: name, name of each run, and the states in which a run can end.

`flows/finetune.py` contains the stages only; everything about Prefect is here.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from prefect import Flow, flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.orchestration.superseded import refused, superseded
from tasks.core.errors import PipelineError

Parameters = ParamSpec("Parameters")
FlowResult = dict[str, str] | State[dict[str, str]]


def run_name() -> str:
    """Profile and selection of a run, such as "cpu_demo · only evaluate"."""
    given = flow_run.parameters
    parts = [Path(str(given.get("profile"))).stem]
    parts += [f"only {', '.join(given['only'])}"] if given.get("only") else []
    parts += [f"from {given['start_from']}"] if given.get("start_from") else []
    parts += [f"until {given['until']}"] if given.get("until") else []
    parts += [f"again {', '.join(given['force'])}"] if given.get("force") else []
    return " · ".join(parts)


def pipeline_flow(
    function: Callable[Parameters, FlowResult],
) -> Flow[Parameters, FlowResult]:
    """Make the flow of the pipeline from a function that runs its stages.

    A run that a newer scheduled run supersedes ends before the first stage. A user error ends a
    run of a deployment as failed, with problem and remedy; elsewhere it is raised.
    """

    @functools.wraps(function)  # Prefect reads the parameters and the description from it
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> FlowResult:
        if (state := superseded()) is not None:
            return state
        try:
            return function(*arguments, **options)
        except PipelineError as error:
            return refused(error)

    return flow(name="finetune", flow_run_name=run_name, persist_result=False)(run)
