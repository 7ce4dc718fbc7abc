"""The flow: fine-tune a code model with 4-bit LoRA, and run only the stages that changed.

Started by `finetune run`, by `prefect deployment run finetune/local-gpu` and by the schedule of
`finetune/nightly`.
"""

from typing import Literal

from flows.orchestration.flow import FlowResult, pipeline_flow
from flows.orchestration.run_stages import opened
from flows.profiles import DEFAULT
from flows.session import Request
from tasks.core.cache.decision import Selection

StageName = Literal["base", "ingest", "filter", "prompt", "tokenize", "train", "evaluate", "merge"]


@pipeline_flow
def finetune(
    profile: str = DEFAULT,
    overrides: list[str] | None = None,
    only: list[StageName] | None = None,
    start_from: StageName | None = None,
    force: list[StageName] | None = None,
    until: StageName | None = None,
) -> FlowResult:
    """Fine-tune a code model with 4-bit LoRA; stages whose inputs did not change are not run again.

    Args:
        profile: Name of a profile (`finetune profiles` lists them) or path of a YAML file.
        overrides: Settings that differ from the profile, "section.field=value" each.
        only: Consider these stages and no others; the artifacts that they read must exist.
        start_from: Consider this stage and all later ones.
        force: Run these stages even if nothing changed.
        until: Consider this stage and all earlier ones.

    Returns:
        Folder of each stage's artifact. A run of a deployment that is superseded, finds nothing to
        do or fails by a user error returns a state with that name instead.
    """
    selection = Selection(tuple(only or ()), start_from, tuple(force or ()), until)
    with opened(Request(profile, tuple(overrides or ()), selection)) as stage:
        stage("base")  # hub id, folder or GGUF file -> safetensors and tokenizer
        stage("ingest")  # files, packages, source trees -> rows
        stage("filter")  # rows -> kept and rejected, with every reason
        stage("prompt")  # kept rows -> prompt and completion, split by project
        stage("tokenize")  # text -> token ids, label mask, packed windows
        stage("train")  # 4-bit base + LoRA on the windows -> adapter
        stage("evaluate")  # base and tuned side by side -> metrics, verdict, report
        stage("merge")  # adapter + 16-bit base -> merged model, verified against both
        stage.promote_improvement()  # only in deployments with the tag "promotes"
        return stage.ending()
