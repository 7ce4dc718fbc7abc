"""Stage `merge`: adapter, base, tokenizer and the gate's verdict -> model/, ready to load.

The adapter can be added to the 16-bit base, or to the dequantized 4-bit base that it was trained
on. Which one is better depends on the model, so both are written and measured.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.core.errors import PipelineError
from tasks.core.models.device import GIB, peak_vram_gib, reset_peak
from tasks.core.models.model_folder import link_or_copy
from tasks.core.models.packed_dataset import Window, Windows
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.core.progress import say
from tasks.core.rows.data_card import DataCard
from tasks.core.settings.config import View
from tasks.core.settings.merge import MergeSettings
from tasks.core.stage import Summary, Work
from tasks.core.text.prompt_templates import PromptTemplate
from tasks.merging.adapter import Adapter, read_adapter
from tasks.merging.candidates import WEIGHT_SUFFIX, Candidates, Trial
from tasks.merging.expert_tensors import ExpertTensors
from tasks.merging.model_card import model_card
from tasks.merging.prompt_format.shipped import PromptFormat, ship
from tasks.merging.resources import check_disk, check_memory, folder_bytes
from tasks.merging.safetensors_io import TensorInfo, list_tensors, plan_shards
from tasks.merging.strategies import registry
from tasks.merging.verify import MergeCheck, best, sample_rows

NOT_COPIED = ("model_limits.json",)  # in the tokenizer's folder: the pipeline's own file
# of the base's config.json: paths of its author, and what the merge replaces
DROPPED_FROM_CONFIG = ("_name_or_path", "torch_dtype", "quantization_config")


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """See the module."""
    settings = config.merge
    gate = _json(inputs["evaluate.gate"])
    check_gate(gate, settings.force)
    candidates = _candidates(settings, inputs, work)
    reset_peak()
    trial = candidates.write_and_measure()
    kept = _select(trial.checks)
    for check in trial.checks:
        if check is not kept:
            shutil.rmtree(candidates.folder(check.strategy), ignore_errors=True)
    model = work.out / "model"
    # linked, not moved: a run that is killed from here on finds its shards again
    shutil.copytree(candidates.folder(kept.strategy), model, copy_function=link_or_copy)
    licence = _json(inputs["base.licence"])
    _add_files(inputs, licence["files"], model, settings.dtype)
    prompt = config.prompt
    form = ship(PromptTemplate(prompt.template, prompt.system, prompt.date), model)
    data = DataCard.read(inputs["tokenize.data_card"])
    card = model_card(
        base=licence["base"],
        licence=licence["licence"],
        licence_files=sorted(licence["files"]),
        adapter=candidates.adapter.settings,
        gate=gate,
        metrics=_json(inputs["evaluate.metrics"]),
        splits=data.splits,
        split=data.split,
        licences=data.licences,
        training=_json(inputs["train.steps"]),
        trial=trial,
        kept=kept,
        settings=settings,
        form=form,
    )
    (model / "README.md").write_text(card, encoding="utf-8")
    traits = ModelTraits.read(inputs["base.weights"])
    for kind in settings.gguf:
        _export(model, kind, work, form, traits, licence)
    return _summary(gate["verdict"], trial, kept, _model_bytes(candidates.shards), settings.gguf)


def check_gate(gate: Mapping[str, Any], force: bool) -> None:
    """Stop if the evaluation found the tuned model worse than the base.

    Raises:
        PipelineError: The verdict is regressed, and force is off.
    """
    if gate["verdict"] == "regressed" and not force:
        raise PipelineError(
            f"the evaluation's verdict is regressed: {' '.join(gate['reasons'])}",
            "Change the training and run again, or set merge.force to merge anyway.",
        )


def _candidates(settings: MergeSettings, inputs: Mapping[str, Path], work: Work) -> Candidates:
    """The merge's inputs, with everything checked that could fail after the expensive part."""
    base = inputs["base.weights"]
    adapter, traits = read_adapter(inputs["train.adapter"], base), ModelTraits.read(base)
    experts = ExpertTensors.of(base, adapter.parameters, traits.experts)
    tensors = list_tensors(base)
    _check_names(adapter, experts, tensors, traits)
    shards = plan_shards(tensors, int(settings.max_shard_gib * GIB))
    strategies = registry.selected(settings.strategy, settings.quantization)
    gguf_bytes = 0
    if settings.gguf:
        from tasks.merging.gguf import export  # imports a package that only this output needs

        export.check_exportable(base, inputs["base.tokenizer"], settings.gguf)
        gguf_bytes = export.file_bytes(sum(t.parameters for t in tensors), settings.gguf)
    model_bytes = _model_bytes(shards)
    check_disk(work.out, model_bytes, len(strategies), gguf_bytes, folder_bytes(work.scratch))
    largest = max(_model_bytes([shard]) for shard in shards)
    check_memory(model_bytes, largest, experts.largest_layer)
    sample = _sample(inputs["tokenize.test"], settings.sample_tokens)
    work.scratch.mkdir(parents=True, exist_ok=True)
    return Candidates(
        settings=settings,
        base=base,
        adapter_folder=inputs["train.adapter"],
        adapter=adapter,
        experts=experts,
        shards=shards,
        strategies=strategies,
        sample=sample,
        scratch=work.scratch,
    )


def _check_names(
    adapter: Adapter, experts: ExpertTensors, tensors: Sequence[TensorInfo], traits: ModelTraits
) -> None:
    names = {traits.module_of(tensor.name) for tensor in tensors}
    wanted = {module + WEIGHT_SUFFIX for module in adapter.updates} | experts.names
    if missing := sorted(wanted - names):
        raise PipelineError(
            f"the adapter changes {len(missing)} layers that the base does not have, such as "
            f"{missing[0]}",
            "Merge into the base model that the adapter was trained on.",
        )


def _sample(test: Path, max_tokens: int) -> Sequence[Window]:
    sample = sample_rows(Windows.open(test).rows(), max_tokens)
    if not sample:
        raise PipelineError(
            "the held-out split has 0 rows: the merged model can't be measured",
            "Give the test split a share of the data in the prompt section.",
        )
    return sample


def _model_bytes(shards: Sequence[Sequence[TensorInfo]]) -> int:
    return sum(tensor.size for shard in shards for tensor in shard)


def _select(checks: Sequence[MergeCheck]) -> MergeCheck:
    """The best merged model; reports why the others are not kept.

    Raises:
        PipelineError: None reproduces base + adapter.
    """
    kept = best(checks)
    if kept is None:
        raise PipelineError(
            "the merged model differs from base + adapter: "
            + "; ".join(f"{check.strategy}: {check.problem}" for check in checks),
            "Check that merge.quantization is the one of the training; otherwise raise "
            "merge.tolerance_percent or lower merge.min_agreement deliberately.",
        )
    for check in checks:
        if check is not kept:
            why = check.problem or f"loss {check.loss:.4f}"
            say(f"{kept.strategy} (loss {kept.loss:.4f}) is kept over {check.strategy} ({why})")
    return kept


def _add_files(
    inputs: Mapping[str, Path], licences: Mapping[str, str], model: Path, dtype: str
) -> None:
    """Add config, generation config, tokenizer and licenses to the weights."""
    config = _json(inputs["base.weights"] / "config.json")
    config = {name: value for name, value in config.items() if name not in DROPPED_FROM_CONFIG}
    text = json.dumps(config | {"dtype": dtype}, indent=2, sort_keys=True) + "\n"
    (model / "config.json").unlink(missing_ok=True)  # a hard link to the one in scratch
    (model / "config.json").write_text(text, encoding="utf-8")
    if (generation := inputs["base.weights"] / "generation_config.json").is_file():
        shutil.copyfile(generation, model / generation.name)
    for name, content in licences.items():
        (model / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    for file in sorted(inputs["base.tokenizer"].iterdir()):
        if file.is_file() and file.name not in NOT_COPIED:
            shutil.copyfile(file, model / file.name)


def _export(
    model: Path,
    kind: str,
    work: Work,
    form: PromptFormat,
    traits: ModelTraits,
    licence: Mapping[str, Any],
) -> None:
    """Write one GGUF file beside the model, and its Modelfile."""
    from tasks.merging.gguf import export

    name = f"model-{kind}.gguf"
    title = f"{licence['base'] or 'model'}, fine-tuned"
    export.write(
        *(model, kind, work.scratch / name),
        name=title,
        licence=licence["licence"],
        traits=traits,
    )
    (work.out / "gguf").mkdir(exist_ok=True)
    link_or_copy(work.scratch / name, work.out / "gguf" / name)
    text = form.modelfile(name)
    (work.out / "gguf" / f"model-{kind}.Modelfile").write_text(text, encoding="utf-8")


def _summary(
    verdict: str, trial: Trial, kept: MergeCheck, model_bytes: int, gguf: Sequence[str]
) -> Summary:
    beside = f" and GGUF {', '.join(gguf)}" if gguf else ""
    return Summary(
        f"{kept.strategy}, loss {kept.loss:.3f} (base + adapter {trial.evaluated_loss:.3f}), "
        f"{100 * kept.agreement:.0f} % same next tokens, {model_bytes / GIB:.2f} GiB{beside}; "
        f"evaluation: {verdict}",
        metrics={f"loss_{check.strategy}": check.loss for check in trial.checks}
        | {f"agreement_{check.strategy}": check.agreement for check in trial.checks}
        | {"loss_evaluated": trial.evaluated_loss, "model_gib": model_bytes / GIB}
        | {"peak_vram_gib": peak_vram_gib()},
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
