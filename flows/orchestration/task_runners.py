"""Task runners for batches of the data stages: Ray or Dask, through Prefect's own integrations.

The functions are those that the process pool runs, and results are returned in the order of the
batches, so that a stage writes the same bytes wherever its batches run. Each batch is a Prefect
task run. Batches and results are passed as pickled bytes, because Prefect would otherwise search
every row of them for futures.
"""

import importlib.util
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Any

from tasks.core.errors import PipelineError
from tasks.core.settings.hardware import HardwareSettings
from tasks.core.stage import RunBatches
from tasks.core.system.parallel import ordered_map

PACKAGES = {"ray": "prefect_ray", "dask": "prefect_dask"}


def run_batches(hardware: HardwareSettings) -> RunBatches:
    """The function that runs batches with these settings.

    Raises:
        PipelineError: The package of the task runner is not installed.
    """
    name = hardware.task_runner
    if name == "processes":
        return ordered_map
    if importlib.util.find_spec(PACKAGES[name]) is None:
        raise PipelineError(
            f"hardware.task_runner is {name}, and {PACKAGES[name]} is not installed",
            f"Install it with: pip install 'finetune-pipeline[{name}]', or set "
            "hardware.task_runner to processes.",
        )
    return partial(_spread, name, hardware.cluster)


def _spread(
    name: str,
    cluster: str | None,
    function: Callable[[Any], Any],
    batches: Iterable[Any],
    workers: int,
) -> Iterator[Any]:
    """Yield `function(batch)` for each batch, in order; as `system.parallel.ordered_map` does."""
    if workers <= 1:  # few rows: faster than starting a cluster
        yield from map(function, batches)
        return
    from prefect import Task
    from prefect.cache_policies import NO_CACHE

    task = Task(
        _work,
        name=f"{function.__module__.rpartition('.')[2]} batch",
        persist_result=False,
        cache_policy=NO_CACHE,
    )
    source = iter(batches)
    waiting: deque[Any] = deque()
    with _known_server(), _runner(name, cluster, workers) as runner:

        def submit(count: int) -> None:
            for batch in islice(source, count):
                packed = pickle.dumps((function, batch))
                waiting.append(runner.submit(task, {"packed": packed}))

        submit(2 * workers)
        while waiting:
            yield pickle.loads(waiting.popleft().result())
            submit(1)


def _work(packed: bytes) -> bytes:
    """Run one batch in a worker."""
    function, batch = pickle.loads(packed)
    return pickle.dumps(function(batch))


def _runner(name: str, cluster: str | None, workers: int) -> AbstractContextManager[Any]:
    """Prefect's task runner, on a running cluster or on a local one with this many processes."""
    if name == "ray":
        from prefect_ray import RayTaskRunner

        local = {"num_cpus": workers, "include_dashboard": False, "log_to_driver": False}
        made: AbstractContextManager[Any] = RayTaskRunner(cluster, {} if cluster else local)
    else:
        from prefect_dask import DaskTaskRunner

        local = {"n_workers": workers, "threads_per_worker": 1}
        made = DaskTaskRunner(address=cluster, cluster_kwargs=None if cluster else local)
    return made


def _known_server() -> AbstractContextManager[Any]:
    """Make workers report to the server of this run, instead of each starting its own."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with get_client(sync_client=True) as client:
        return temporary_settings({PREFECT_API_URL: str(client.api_url)})
