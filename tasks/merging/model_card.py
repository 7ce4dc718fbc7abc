"""The model card: what the model is, what was measured, and under which license it may be used."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tasks.core.rows.data_card import Split
from tasks.core.rows.split_unit import count_of
from tasks.core.settings.merge import MergeSettings
from tasks.merging.candidates import Trial
from tasks.merging.prompt_format.shipped import TASK, PromptFormat
from tasks.merging.strategies.registry import STRATEGIES
from tasks.merging.verify import MergeCheck

HUB_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause")  # identifiers of the hub


def model_card(
    *,
    base: str,
    licence: str,
    licence_files: Sequence[str],
    adapter: Mapping[str, Any],
    gate: Mapping[str, Any],
    metrics: Mapping[str, Any],
    splits: Sequence[Split],
    split: str,
    licences: Sequence[tuple[str, int]],
    training: Mapping[str, Any],
    trial: Trial,
    kept: MergeCheck,
    settings: MergeSettings,
    form: PromptFormat,
) -> str:
    """README.md of the merged model.

    Args:
        base: Name of the base model; "" if unknown.
        licence: Name of its license; "" if unknown.
        licence_files: Names of the license files beside the card.
        adapter: adapter_config.json.
        gate: gate.json.
        metrics: metrics.json.
        splits: Rows, tokens and projects of train, validation and test, as far as known.
        split: How the rows were split; "" unknown.
        licences: (License, rows) of the training rows.
        training: steps.json of the training.
        trial: Measurements of all merge strategies.
        kept: The one that was kept.
        settings: Of the merge.
        form: How the model is prompted.
    """
    parts = [
        _front_matter(base, licence),
        f"# {_name(base) or 'Model'}, fine-tuned with LoRA\n",
        _verdict(gate),
        _before_after(gate),
        _data(splits, split, licences, metrics),
        _training(adapter, settings.dtype, training),
        _merge(trial, kept, settings.quantization),
        usage(form),
        _licence(licence, licence_files),
    ]
    return "\n".join(part for part in parts if part)


def _name(base: str) -> str:
    """A base without the package that holds it, and without the ending of its file."""
    return base.rpartition(": ")[2].removesuffix(".gguf")


def _front_matter(base: str, licence: str) -> str:
    fields: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    model, at, _commit = base.partition("@")
    if at:  # on the hub; a local folder is nothing that a reader of the card could find
        fields["base_model"] = model
    if not licence or licence.lower() in HUB_LICENCES:
        fields["license"] = licence.lower() or "unknown"
    else:
        fields |= {"license": "other", "license_name": licence}
    fields["tags"] = ["code", "lora", "merged"]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n"


def _verdict(gate: Mapping[str, Any]) -> str:
    text = f"Evaluation against the base: **{gate['verdict']}**. {' '.join(gate['reasons'])}\n"
    if gate["verdict"] == "regressed":
        text += "\nIt was merged against this verdict, by `merge.force`.\n"
    return text


def _before_after(gate: Mapping[str, Any]) -> str:
    if not gate["comparisons"]:
        return ""
    lines = [
        "| Measured | Base | Tuned | Difference | 95 % interval | p (Holm) |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for c in gate["comparisons"]:
        s = c["shown"]
        lines.append(
            f"| {c['name']}, {c['on']}, {count_of(c['units'], c['unit'].removesuffix('s'))} "
            f"| {s['base']} | {s['tuned']} | {s['difference']} | {s['interval']} "
            f"| {_p(c['p_adjusted'])} |"
        )
    notes = dict.fromkeys(c["note"] for c in gate["comparisons"] if c["note"])
    text = "\n".join(lines) + "\n"
    return text + "".join(f"\n{note}\n" for note in notes if note not in gate["reasons"])


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _data(
    splits: Sequence[Split],
    split: str,
    licences: Sequence[tuple[str, int]],
    metrics: Mapping[str, Any],
) -> str:
    rows = [f"| {s.name} | {s.rows:,} | {s.projects:,} | {s.tokens:,} |" for s in splits]
    rows += [
        f"| measured: {name} | {m['rows']:,} | {m['projects']:,} | {m['tokens']:,} |"
        for name, m in metrics.get("rows", {}).items()
    ]
    if not rows:
        return ""
    heading = splits[0].unit_heading if splits else "Projects"
    head = [f"| Split | Rows | {heading} | Tokens |", "|---|--:|--:|--:|"]
    text = "## Data\n\n" + "\n".join([*head, *rows]) + "\n"
    if split:
        text += f"\n{split}\n"
    if licences:
        named = ", ".join(f"{name or 'unknown'} ({count:,})" for name, count in licences)
        text += f"\nLicenses of the training rows: {named}.\n"
    return text


def _training(adapter: Mapping[str, Any], dtype: str, training: Mapping[str, Any]) -> str:
    kind = "DoRA" if adapter.get("use_dora") else "LoRA"
    scaling = "alpha / sqrt(rank)" if adapter.get("use_rslora") else "alpha / rank"
    modules = adapter.get("target_modules") or []
    named = modules if isinstance(modules, str) else ", ".join(sorted(modules))
    dropout = f", dropout {adapter.get('lora_dropout', 0)}"
    if fused := adapter.get("target_parameters"):
        last = sorted({name.rpartition(".")[2] for name in fused})
        ranks = sorted(set((adapter.get("rank_pattern") or {}).values()))
        rank = f" (rank {', '.join(map(str, ranks))})" if ranks else ""
        named += f" and on the fused parameters {', '.join(last)}{rank}"
        dropout = ""  # PEFT's configuration can't hold that of the linear layers beside them
    return (
        f"## Training\n\n{kind}, rank {adapter['r']}, alpha {adapter['lora_alpha']} "
        f"(scaling {scaling}){dropout}, on {named}. "
        f"Weights are {dtype}.{_steps(training)}\n"
    )


def _steps(training: Mapping[str, Any]) -> str:
    """Steps and tokens of the training, and its validation loss."""
    losses = [v["loss"] for v in training["validation"]]
    loss = f"; validation loss {losses[0]:.3f} before, {losses[-1]:.3f} after" if losses else ""
    return f" {training['step']:,} steps, {training['tokens']:,} tokens{loss}."


def _merge(trial: Trial, kept: MergeCheck, quantization: str) -> str:
    evaluated = "16-bit base" if quantization == "none" else f"{quantization} base"
    lines = [
        "| Model | Held-out loss | Same next token as unmerged |",
        "|---|--:|--:|",
        f"| {evaluated} + adapter, as evaluated | {trial.evaluated_loss:.4f} | |",
    ]
    for check in trial.checks:
        if check.unmerged_loss != trial.evaluated_loss:
            lines.append(f"| 16-bit base + adapter | {check.unmerged_loss:.4f} | |")
        name = f"merged, {check.strategy}" + (", kept" if check is kept else "")
        lines.append(f"| {name} | {check.loss:.4f} | {100 * check.agreement:.1f} % |")
    description = next(s.description for s in STRATEGIES if s.name == kept.strategy)
    return (
        f"## Merge\n\nThe adapter was {description}. "
        f"On {trial.sample_tokens:,} held-out tokens:\n\n" + "\n".join(lines) + "\n"
    )


def usage(form: PromptFormat) -> str:
    """How to prompt the model: code, an example, stop words and infilling."""
    stop = f", stop_strings={list(form.stop)!r}, tokenizer=tokenizer" if form.stop else ""
    text = (
        "## Use\n\n```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'folder = "."  # this one\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        'model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")\n'
        f'chat = [{{"role": "user", "content": "{TASK}"}}]\n'
        "prompt = tokenizer.apply_chat_template(\n"
        '    chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"\n)\n'
        f"output = model.generate(**prompt, max_new_tokens=256, do_sample=False{stop})\n"
        'answer = output[0, prompt["input_ids"].shape[1] :]\n'
        "print(tokenizer.decode(answer, skip_special_tokens=True))\n```\n\n"
        "The chat template writes the prompts of the training. That of this example:\n\n"
        f"````text\n{form.example}\n````\n"
    )
    if form.stop:
        words = " or ".join(f"`{json.dumps(word, ensure_ascii=False)}`" for word in form.stop)
        text += f"\nAn answer ends before {words}, or at an end token.\n"
    if form.infilling:
        prefix, suffix, middle = form.infilling
        text += (
            f"\nInfilling: `{prefix}`, the code before the cursor, `{suffix}`, the code after it, "
            f"`{middle}`.\n"
        )
    return text


def _licence(licence: str, files: Sequence[str]) -> str:
    name = licence or "unknown; look it up before you distribute the model"
    beside = f" See {', '.join(files)} beside this card." if files else ""
    return f"## License\n\nThat of the base model: {name}.{beside}\n"
