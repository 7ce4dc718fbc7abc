"""A merged model as files: folder, GGUF files and prompt format, of the champion or by path."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from flows.store_access import open_store, root
from tasks.core.artifacts import champion as champions
from tasks.core.artifacts.champion import ChampionChange
from tasks.core.cache.store import Store
from tasks.core.errors import PipelineError

CHAMPION = "champion"
FORMAT_FILE = "prompt_format.json"
# preferred when serving: nearest to the measured model that is not larger than needed
KINDS = ("q8_0", "f16", "q4_k_m")


@dataclass(frozen=True)
class DeliveredModel:
    """A merged model as other programs load it.

    Attributes:
        name: Shown to the user.
        folder: Config, weights and tokenizer; None for a GGUF file alone.
        gguf: GGUF files by kind.
        stop: Texts that end an answer.
        infilling: Names of the tokens before prefix, suffix and middle; of two, before suffix and
            prefix; None without.
        adapter: Folder of the adapter; None if unknown.
        licence: licence.json of the base; None if unknown.
        data_card: data_card.json of the training; None if unknown.
    """

    name: str
    folder: Path | None
    gguf: Mapping[str, Path] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    infilling: tuple[str, ...] | None = None
    adapter: Path | None = None
    licence: Path | None = None
    data_card: Path | None = None

    def preferred_gguf(self) -> Path | None:
        """The GGUF file to serve; None if there is none."""
        known = [self.gguf[kind] for kind in KINDS if kind in self.gguf]
        return next(iter([*known, *self.gguf.values()]), None)


def find_model(source: str = CHAMPION) -> DeliveredModel:
    """The champion, or a model by the path of its folder, its artifact or its GGUF file.

    Raises:
        PipelineError: There is none.
    """
    if source != CHAMPION:
        return _by_path(Path(source).expanduser().resolve())
    with open_store() as store:
        standing = champions.current(store)
        if standing is None:
            raise PipelineError(
                "no model is promoted",
                "Promote one with `finetune promote`, or name a model: --model FOLDER.",
            )
        artifact = (root() / champions.LINK).resolve()
        if not (artifact / "model" / "config.json").is_file():
            raise PipelineError(
                f"champion {standing.name} has no model in {artifact}", "Recreate it: finetune run."
            )
        model = _model(f"champion {standing.name}", artifact / "model", artifact / "gguf")
        return replace(
            model,
            adapter=_made(store, standing, "train", "adapter"),
            licence=_made(store, standing, "base", "licence"),
            data_card=_made(store, standing, "tokenize", "data_card"),
        )


def _made(store: Store, standing: ChampionChange, stage: str, name: str) -> Path | None:
    """An entry of an artifact from which the champion was produced."""
    key = standing.chain.get(stage)
    manifest = store.find(stage, key).manifest if key else None
    return store.entry(manifest, name) if manifest else None


def _by_path(path: Path) -> DeliveredModel:
    if path.suffix == ".gguf" and path.is_file():
        near = (path.parent, path.parent.parent, path.parent.parent / "model")
        form = next((folder for folder in near if (folder / FORMAT_FILE).is_file()), path.parent)
        return DeliveredModel(f"model {path}", None, {_kind(path): path}, *_prompt_format(form))
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            beside = folder.parent if folder.name == "model" else folder
            return _model(f"model {folder}", folder, beside / "gguf")
    raise PipelineError(
        f"{path} is neither a GGUF file nor a folder with config.json",
        "Name the folder of a merged model, or a GGUF file.",
    )


def _model(name: str, folder: Path, gguf: Path) -> DeliveredModel:
    files = {_kind(file): file for file in sorted(gguf.glob("*.gguf"))}
    return DeliveredModel(name, folder, files, *_prompt_format(folder))


def _kind(file: Path) -> str:
    return file.stem.rpartition("-")[2]


def _prompt_format(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Stop words and infilling tokens; none of a model that was merged without its format."""
    file = folder / FORMAT_FILE
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    infilling = content.get("infilling")
    return tuple(content.get("stop", ())), tuple(infilling) if infilling else None
