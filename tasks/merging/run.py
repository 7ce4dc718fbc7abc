"""Stage `merge`: adapter, base, tokenizer and the gate's verdict -> model/, ready to be loaded.

Two ways exist: add the adapter to the 16-bit base, or to what comes back from the 4-bit base that
it was trained on. Which is better depends on the model, so both are made and measured.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.core.errors import PipelineError
from tasks.core.models.loading import peak_vram_gib, reset_peak
from tasks.core.models.packed_dataset import Windows
from tasks.core.progress import say
from tasks.core.rows.data_card import read_licences, read_splits
from tasks.core.settings.config import View
from tasks.core.settings.merge import MergeSettings
from tasks.core.stage import Summary, Work
from tasks.merging.adapter import Adapter, read_adapter
from tasks.merging.model_card import model_card
from tasks.merging.resources import (
    GIB,
    check_disk,
    check_memory,
    folder_bytes,
)
from tasks.merging.safetensors_io import Entry, list_tensors, plan_shards
from tasks.merging.strategies import (
    WEIGHTS_SUFFIX,
    Trial,
    folder_of,
    try_all,
)
from tasks.merging.verify import Verdict, best, sample_rows

NOT_COPIED = ("model_limits.json",)  # of the tokenizer's folder: the pipeline's own
PATHS_IN_CONFIG = ("_name_or_path", "torch_dtype", "quantization_config")


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """See the module."""
    settings = config.merge
    gate = _json(inputs["evaluate.gate"])
    obey(gate, settings.force)
    adapter = read_adapter(inputs["train.adapter"])
    tensors = list_tensors(inputs["base.weights"])
    _check_names(adapter, tensors)
    shards = plan_shards(tensors, int(settings.max_shard_gib * GIB))
    strategies = _strategies(settings.strategy, settings.quantization)
    model_bytes = _check_room(settings, tensors, shards, strategies, work)
    if settings.gguf:
        from tasks.merging.gguf import export  # needs a package that only this output needs

        export.check_exportable(inputs["base.weights"], inputs["base.tokenizer"])
    sample = sample_rows(Windows.open(inputs["tokenize.test"]).rows(), settings.sample_tokens)
    if not sample:
        raise PipelineError(
            "the held-out split has 0 rows: the merged model can't be measured",
            "Give the test split a share of the data in the prompt section.",
        )
    work.scratch.mkdir(parents=True, exist_ok=True)
    reset_peak()
    trial = try_all(
        settings,
        inputs,
        work.scratch,
        adapter=adapter,
        shards=shards,
        strategies=strategies,
        sample=sample,
    )
    kept = _choose(trial.tried)
    for strategy in strategies:
        if strategy != kept.strategy:
            shutil.rmtree(folder_of(work.scratch, strategy), ignore_errors=True)
    model = work.out / "model"
    # linked, not moved: a run that is killed from here on finds its shards again
    shutil.copytree(folder_of(work.scratch, kept.strategy), model, copy_function=_link)
    _accompany(inputs, model, settings.dtype)
    licence = _json(inputs["base.licence"])
    card = model_card(
        base=licence["base"],
        licence=licence["licence"],
        licence_files=licence["files"],
        adapter=adapter.settings,
        gate=gate,
        metrics=_json(inputs["evaluate.metrics"]),
        splits=read_splits(inputs),
        licences=read_licences(inputs.get("filter.kept"), inputs.get("tokenize.train")),
        training=_json(inputs["train.training"]) if "train.training" in inputs else {},
        tried=trial.tried,
        kept=kept,
        evaluated_loss=trial.evaluated_loss,
        quantization=settings.quantization,
        sample_tokens=trial.sample_tokens,
        dtype=settings.dtype,
        forced=gate["verdict"] == "regressed",
    )
    (model / "README.md").write_text(card, encoding="utf-8")
    for kind in settings.gguf:
        _export(model, kind, work, base=licence["base"], licence=licence["licence"])
    return _summary(gate["verdict"], trial, kept, model_bytes, settings.gguf)


def _check_room(
    settings: MergeSettings,
    tensors: Sequence[Entry],
    shards: Sequence[Sequence[Entry]],
    strategies: Sequence[str],
    work: Work,
) -> int:
    """See that disk and memory suffice; returns the bytes of the merged model."""
    model_bytes = sum(entry.size for entry in tensors)
    gguf_bytes = 0
    if settings.gguf:
        from tasks.merging.gguf import export

        parameters = sum(entry.parameters for entry in tensors)
        gguf_bytes = export.file_bytes(parameters, settings.gguf)
    check_disk(
        work.out,
        model_bytes,
        len(strategies),
        gguf_bytes,
        folder_bytes(work.scratch),
    )
    check_memory(model_bytes, max(sum(e.size for e in shard) for shard in shards))
    return model_bytes


def _export(model: Path, kind: str, work: Work, *, base: str, licence: str) -> None:
    """Write one GGUF file beside the model."""
    from tasks.merging.gguf import export

    name = f"model-{kind}.gguf"
    title = f"{base or 'model'}, fine-tuned"
    export.write(model, kind, work.scratch / name, name=title, licence=licence)
    (work.out / "gguf").mkdir(exist_ok=True)
    _link(work.scratch / name, work.out / "gguf" / name)


def _link(source: str | Path, target: str | Path) -> None:
    """Give a file a second name; copy it where the file system knows no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def obey(gate: Mapping[str, Any], force: bool) -> None:
    """Stop where the evaluation found the tuned model worse.

    Raises:
        PipelineError: The verdict is regressed, and force is off.
    """
    if gate["verdict"] == "regressed" and not force:
        raise PipelineError(
            f"the evaluation says regressed: {' '.join(gate['reasons'])}",
            "Change the training and run again, or set merge.force to merge all the same.",
        )


def _strategies(strategy: str, quantization: str) -> tuple[str, ...]:
    if quantization == "none":
        return ("base16",)
    return ("base16", "dequantized") if strategy == "best" else (strategy,)


def _check_names(adapter: Adapter, tensors: Sequence[Entry]) -> None:
    names = {entry.name for entry in tensors}
    if missing := [m for m in sorted(adapter.updates) if m + WEIGHTS_SUFFIX not in names]:
        raise PipelineError(
            f"the adapter changes {len(missing)} layers that the base does not have, such as "
            f"{missing[0]}",
            "Merge into the base model that the adapter was trained on.",
        )


def _choose(tried: Sequence[Verdict]) -> Verdict:
    """The best way of merging, and a sentence about the others.

    Raises:
        PipelineError: None does what base + adapter did.
    """
    kept = best(tried)
    if kept is None:
        raise PipelineError(
            "the merged model differs from base + adapter: "
            + "; ".join(f"{verdict.strategy}: {verdict.problem}" for verdict in tried),
            "See that merge.quantization is what training used; else raise "
            "merge.tolerance_percent or lower merge.min_agreement, knowingly.",
        )
    for verdict in tried:
        if verdict is not kept:
            why = verdict.problem or f"loss {verdict.loss:.4f}"
            say(f"{kept.strategy} (loss {kept.loss:.4f}) is kept over {verdict.strategy} ({why})")
    return kept


def _accompany(inputs: Mapping[str, Path], model: Path, dtype: str) -> None:
    """What belongs beside the weights: config, tokenizer, generation config, licences."""
    config = _json(inputs["base.weights"] / "config.json")
    config = {name: value for name, value in config.items() if name not in PATHS_IN_CONFIG}
    text = json.dumps(config | {"dtype": dtype}, indent=2, sort_keys=True) + "\n"
    (model / "config.json").unlink(missing_ok=True)  # a link to the one in scratch
    (model / "config.json").write_text(text, encoding="utf-8")
    for file in sorted(inputs["base.weights"].iterdir()):
        licence = file.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))
        if licence or file.name == "generation_config.json":
            shutil.copyfile(file, model / file.name)
    for file in sorted(inputs["base.tokenizer"].iterdir()):
        if file.is_file() and file.name not in NOT_COPIED:
            shutil.copyfile(file, model / file.name)


def _summary(
    verdict: str, trial: Trial, kept: Verdict, model_bytes: int, gguf: Sequence[str]
) -> Summary:
    beside = f" and GGUF {', '.join(gguf)}" if gguf else ""
    return Summary(
        f"{kept.strategy}, loss {kept.loss:.3f} (base + adapter {trial.evaluated_loss:.3f}), "
        f"{100 * kept.agreement:.0f} % same next tokens, {model_bytes / GIB:.2f} GiB{beside}; "
        f"evaluation: {verdict}",
        metrics={f"loss_{v.strategy}": v.loss for v in trial.tried}
        | {f"agreement_{v.strategy}": v.agreement for v in trial.tried}
        | {"loss_evaluated": trial.evaluated_loss, "model_gib": model_bytes / GIB}
        | {"peak_vram_gib": peak_vram_gib()},
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
