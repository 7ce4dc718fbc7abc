"""Commands of `finetune`, one module per command or group of commands."""
