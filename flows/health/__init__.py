"""What `finetune doctor` looks at: the machine, and the Prefect side."""
