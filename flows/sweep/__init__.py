"""Sweep: variants of training settings, compared on the validation split.

`grid` reads the variants and orders them, `trials` turns them into requests of the flow, `scores`
compares their losses, `page` writes the page. The command is `flows/commands/sweep.py`.
"""
