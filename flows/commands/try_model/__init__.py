"""`finetune try`: one answer of a model, in the terminal."""
