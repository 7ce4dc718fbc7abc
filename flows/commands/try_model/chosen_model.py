"""The model that answers: the champion, the adapter of the settings, or a folder."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from flows.session import Request, open_session
from flows.store_access import current_artifact, open_store, plan_of, root
from tasks.core.artifacts import champion as champions
from tasks.core.artifacts.champion import ChampionChange
from tasks.core.cache import manifest as manifests
from tasks.core.cache.store import KEY_DIGITS
from tasks.core.errors import PipelineError
from tasks.core.settings.config import Config
from tasks.core.text.prompt_templates import PromptTemplate

CHAMPION, ADAPTER = "champion", "adapter"


@dataclass(frozen=True)
class Chosen:
    """The model that answers.

    Attributes:
        name: Shown to the user.
        weights: Folder of the full model, or of the base of the adapter.
        tokenizer: Folder of the tokenizer.
        adapter: Folder of the adapter; None for a full model.
        template: Prompt template of its training.
        is_ours: The pipeline created its folder.
    """

    name: str
    weights: Path
    tokenizer: Path
    adapter: Path | None
    template: PromptTemplate
    is_ours: bool = True


def choose(request: Request, config: Config, source: str | None, held: ExitStack) -> Chosen:
    """Find the model that answers.

    Args:
        request: Settings; an adapter runs on their base model.
        config: The same settings, loaded.
        source: `CHAMPION`, `ADAPTER` or a folder; None: the champion if there is one, else the
            adapter.
        held: Keeps `gc` from removing the model while it is open.

    Raises:
        PipelineError: The model does not exist.
    """
    store = held.enter_context(open_store())
    held.enter_context(store.in_use())
    if source in (None, CHAMPION):
        standing = champions.current(store)
        if standing is not None:
            name = f"champion {standing.name}"
            return _whole(name, root() / champions.LINK / "model", _its_template(standing, config))
        if source == CHAMPION:
            raise PipelineError("no model is promoted", "Promote one: finetune promote.")
    if source in (None, ADAPTER):
        return _on_base(request, None)
    return _in_folder(request, config, str(source))


def _its_template(champion: ChampionChange, config: Config) -> PromptTemplate:
    """The template of a champion's training; that of the settings where it is not recorded."""
    template = _template(config)
    made = manifests.read(root() / "prompt" / champion.chain.get("prompt", "")[:KEY_DIGITS])
    if made is None:
        return template
    values = made.parts["config"]
    return PromptTemplate(
        text=values.get("prompt.template", template.text),
        system=values.get("prompt.system", ""),
        date=values.get("prompt.date", template.date),
    )


def _in_folder(request: Request, config: Config, source: str) -> Chosen:
    folder = Path(source).expanduser()
    for inner in (folder, folder / "model", folder / "adapter"):
        if (inner / "adapter_config.json").is_file():
            if not (inner / "adapter_model.safetensors").is_file():
                raise PipelineError(
                    f"{inner} has no adapter_model.safetensors",
                    "Save the adapter as safetensors; pickled weights are not loaded.",
                )
            return _on_base(request, inner.resolve())
        if (inner / "config.json").is_file():
            whole = _whole(f"model {inner}", inner.resolve(), _template(config))
            return replace(whole, is_ours=False)
    raise PipelineError(
        f"{source} is neither champion nor adapter, nor a folder with config.json or "
        "adapter_config.json",
        "Name the folder of a model or of an adapter.",
    )


def _whole(name: str, folder: Path, template: PromptTemplate) -> Chosen:
    if not (folder / "config.json").is_file():
        raise PipelineError(f"{name} has no model in {folder}", "Recreate it with: finetune run.")
    return Chosen(name, folder, folder, None, template)


def _on_base(request: Request, adapter: Path | None) -> Chosen:
    """An adapter, by default the one of these settings, on the base of these settings."""
    with open_session(request.leading_to("train" if adapter is None else "base")) as session:
        base = current_artifact(plan_of(session, "base"))
        name = f"adapter {adapter}"
        if adapter is None:
            train = current_artifact(plan_of(session, "train"))
            adapter = session.store.entry(train, "adapter")
            name = f"adapter train/{train.key[:KEY_DIGITS]}"
        weights, tokenizer = (session.store.entry(base, n) for n in ("weights", "tokenizer"))
        assert weights is not None and tokenizer is not None  # declared outputs
        return Chosen(name, weights, tokenizer, adapter, _template(session.config))


def _template(config: Config) -> PromptTemplate:
    prompt = config.prompt
    return PromptTemplate(prompt.template, prompt.system, prompt.date)
