"""`finetune serve`: Prefect server, work pool, deployments and worker in the foreground."""

import click


@click.command
@click.option("--port", default=4200, show_default=True, help="Port of the server.")
def serve(port: int) -> int:
    """Start Prefect's server and a worker, with the deployments.

    For scheduled runs and the web page of Prefect; `finetune run` needs no server. Runs until
    Ctrl-C.
    """
    from flows.orchestration.serve import serve as start
    from flows.orchestration.server_checks import close_dead_runs

    return start(port, close_dead_runs)
