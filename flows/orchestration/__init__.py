"""All code that uses Prefect: flow, tasks, run page, progress, server and worker."""
