"""`finetune promote | rollback | champion`: promote a merged model, roll back, show it.

A challenger has to be better than the base, by the verdict of its own evaluation, and better than
the current champion, by `tasks.evaluation.challenger`.
"""

import dataclasses
import json

import click

from flows import messages, terminal
from flows.commands import options
from flows.delivery.promotion import outcome_of, print_reasons, promote_model
from flows.session import Request
from flows.store_access import open_store, root
from tasks.core.artifacts import champion as champions


@click.command
@click.option("--force", is_flag=True, help="Promote it even if it is not shown to be better.")
@click.option("--ollama", metavar="NAME", help="Also create it in Ollama, by this name.")
@click.option(
    "--push", "repository", metavar="ORG/NAME", help="Also upload it to the Hugging Face hub."
)
@click.option("--public", is_flag=True, help="With --push: create a public repository.")
@options.because
@options.takes_settings
def promote(
    request: Request,
    force: bool,
    ollama: str | None,
    repository: str | None,
    public: bool,
    because: str,
) -> int:
    """Promote the merged model of these settings to champion.

    The champion is the model that `try`, `export` and `serve-model` use. A model is promoted if its
    evaluation shows that it is better than its base and than the present champion.

    \b
    Example:
      finetune promote --because "fewer wrong imports"
    """
    if ollama is None and repository is None:
        return promote_model(request, force, because)
    from flows.delivery import hub_upload
    from flows.delivery import ollama as ollama_command
    from flows.delivery.delivered_model import find_model

    if ollama is not None:
        ollama_command.check_ollama()
    if repository is not None:
        hub_upload.check_repository_name(repository)
    promote_model(request, force, because)
    model = find_model()
    if ollama is not None:
        ollama_command.create_in_ollama(model, ollama)
    if repository is not None:
        terminal.show(f"uploaded: {hub_upload.push(model, repository, public)}")
    return 0


@click.command
@options.because
def rollback(because: str) -> int:
    """Undo the last promotion."""
    with open_store() as store, store.in_use():
        last, now = champions.rollback(store, because)
    terminal.show(f"rolled back: {last.name} -> {now.name}, promoted {messages.moment(now.when)}")
    return 0


@click.command
@options.as_json
def champion(as_json: bool) -> int:
    """Show the promoted model and the promotions before it."""
    with open_store() as store:
        now = champions.current(store)
        entries = champions.history(root())
        found = store.find(now.stage, now.key) if now else None
    whole = found is not None and found.manifest is not None
    if as_json:
        plain = dataclasses.asdict(now) if now else None
        changes = [dataclasses.asdict(entry) for entry in entries]
        print(json.dumps({"champion": plain, "whole": whole, "history": changes}, indent=2))
        return 0
    if now is None:
        terminal.show(
            "No model is promoted. Promote the one of your settings with: finetune promote"
        )
        return 0
    terminal.show(f"{now.name}, promoted {messages.moment(now.when)}: {outcome_of(now)}")
    terminal.show(str(root() / champions.LINK / "model"))
    if not whole:
        problem = " ".join(found.problem) if found and found.problem else "it does not exist"
        terminal.show(f"DAMAGED: {problem}. Roll back with: finetune rollback")
    print_reasons(now)
    for name, value in now.metrics.items():
        words, text = messages.metric(name, value)
        terminal.show(f"  {words:<38}{text:>14}")
    terminal.show("history")
    for entry in reversed(entries):
        terminal.show(
            f"  {messages.moment(entry.when)}  {entry.action:<9} {entry.name}  {outcome_of(entry)}"
        )
    return 0
