"""`finetune profiles`: the profiles that come with the project."""

import click

from flows import profiles as known
from flows import terminal


@click.command
def profiles() -> int:
    """List the profiles that come with the project."""
    for name in known.names():
        default = "  (default)" if name == known.DEFAULT else ""
        terminal.show(f"{name:<24}{known.headline(name)}{default}")
    return 0
