"""`finetune show`: what the artifacts contain."""
