"""`finetune doctor`: checks the machine and the Prefect server."""
